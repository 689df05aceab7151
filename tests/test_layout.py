"""The map is a promise: what lies where, how long it may be, and what the pages say about it."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import imprint

ROOT = Path(__file__).parent.parent
STAGES = {path.stem for path in (ROOT / "rules").glob("*.smk")} - {"common"}
TRAINING = {"base", "mid", "sft"}

ORDER = [
    *("input", "output", "log", "benchmark", "wildcard_constraints", "retries", "priority"),
    *("threads", "resources", "params", "message", "script", "shell"),
]

MACHINE = re.compile(r"(?<![\w.])/(?:root|home|work|tmp|Users)/\w+")


def tracked() -> list[Path]:
    """Return every text file of the repository; without git, of the folders that matter."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and path.suffix not in (".png", ".svg")]


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}


def test_every_rule_file_has_a_stage() -> None:
    twins = {path.stem for path in (ROOT / "src/imprint/stages").glob("*.py")} - {"__init__"}
    assert twins == STAGES


def test_every_rule_file_has_a_script() -> None:
    twins = {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}
    assert twins == STAGES - TRAINING | {"train"}


@pytest.mark.parametrize(
    ("pattern", "cap"),
    [
        ("src/**/*.py", 300),
        ("workflow/scripts/*.py", 30),
        ("rules/[!c]*.smk", 40),
        ("rules/corpus.smk", 40),
        ("rules/common.smk", 150),
    ],
)
def test_rooms_stay_small(pattern: str, cap: int) -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.glob(pattern)
    }
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > cap} == {}


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_rule_has_its_directives_in_order_with_log_and_message(stage: str) -> None:
    text = (ROOT / "rules" / f"{stage}.smk").read_text(encoding="utf-8")
    found = re.findall(r"^    (\w+):", text, re.MULTILINE)
    assert found == [name for name in ORDER if name in found]
    assert {"log", "resources", "params", "message"} <= set(found)
    assert f"rule {stage}:" in text


def test_every_yaml_can_be_read() -> None:
    paths = [path for path in tracked() if path.suffix in (".yaml", ".yml")]
    assert len(paths) > 5
    for path in paths:
        yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_pins_satisfy_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = pins()
    for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        wanted = Requirement(line)
        name = canonicalize_name(wanted.name)
        assert name in found, f"{name} is not pinned; run: make lock"
        assert wanted.specifier.contains(found[name]), f"{name}=={found[name]}; run: make lock"


def test_pins_name_no_place_and_no_build() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"(?:[\w.-]+==[\w.]+\n)+", text)


def test_the_newest_version_of_the_changelog_is_ours() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)
    assert heads[:2] == ["Unreleased", imprint.__version__]
    assert version("imprint") == imprint.__version__


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/index.md", "config/README.md", "docs/modal.md"]
)
def test_the_commands_and_files_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets, f"{page} names {sorted(named - targets)}"
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_the_makefile_passes_on_what_it_is_given() -> None:
    shown = subprocess.run(
        ["make", "-n", "identity", "IDENTITY=my file.yaml", "SCALE=tiny", "PROFILE=other"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    (call,) = [line for line in shown.splitlines() if "imprint identity -- " in line]
    assert '--config "identity=my file.yaml" "scale=tiny"' in call
    assert "--workflow-profile profiles/other" in call


def test_every_profile_decides_by_contents_and_params() -> None:
    for path in (ROOT / "profiles").glob("*/config.yaml"):
        profile = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert profile["rerun-triggers"] == ["mtime", "params", "input"], path
        assert profile["max-checksum-file-size"] == "10GB", path
        assert "executor" not in profile or path.parent.name != "default"


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tracked()
        if path != Path(__file__)
        for match in MACHINE.finditer(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()
