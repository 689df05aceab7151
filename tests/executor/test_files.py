"""Which files a job needs on Modal, and when two orders are the same."""

import dataclasses
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_modal import files
from snakemake_executor_plugin_modal.hardware import Hardware

TRACKED = (
    "Snakefile",
    "config.yaml",
    "rules/a.smk",
    "src/token.py",
    "tokenizer.json",
    "id_rsa.pub",
)
IGNORED = ("ignored/big", "ignored/included.smk")  # the second is part of the workflow
KEYS = (".env", "deploy/server.key", "cert.pem", "token.json", "my-credentials.yaml", "id_rsa")


def workflow(outputs: list[str], snakefile: str = "Snakefile") -> SimpleNamespace:
    """Return as much of a workflow as the choice of sources looks at."""
    jobs = [SimpleNamespace(output=outputs)]
    source = {
        name: SimpleNamespace(get_path_or_uri=lambda secret_free, name=name: name)
        for name in ("ignored/included.smk", "src/token.py")
    }
    rules = [
        SimpleNamespace(
            script="token.py", basedir=SimpleNamespace(join=lambda _: source["src/token.py"])
        ),
        SimpleNamespace(script=None, notebook=None),
    ]
    return SimpleNamespace(
        main_snakefile=snakefile,
        configfiles=["config.yaml"],
        included=[source["ignored/included.smk"]],
        rules=rules,
        dag=SimpleNamespace(jobs=jobs),
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in (
        *TRACKED,
        *KEYS,
        "results/base.pt",
        ".snakemake/log",
        *IGNORED,
        "made/it.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / ".gitignore").write_text("results/\nignored/\n")
    return tmp_path


def test_what_git_tracks_or_would_travels_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "add", "Snakefile", "made/it.txt"], check=True)
    (project / "service.txt").write_text("a key, by what a variable says")
    monkeypatch.setenv("SERVICE_API_KEY_FILE", str(project / "service.txt"))
    taken, held = files.sources(workflow(["made"]))
    assert taken == sorted([*TRACKED, ".gitignore", "ignored/included.smk"])
    assert held == sorted([*KEYS, "service.txt"])


@pytest.mark.parametrize("git", ["installed", "missing"])
def test_without_git_travels_what_snakemake_knows(
    project: Path, monkeypatch: pytest.MonkeyPatch, git: str
) -> None:
    if git == "missing":
        monkeypatch.setenv("PATH", str(project))
    (project / "src" / "helper.py").write_text("beside the script")
    taken, held = files.sources(workflow([]))
    sources = ["src/helper.py", "src/token.py"]
    assert taken == ["Snakefile", "config.yaml", "ignored/included.smk", *sources]
    assert held == []


def test_a_snakefile_from_elsewhere_is_refused(project: Path) -> None:
    (project / "below").mkdir()
    with pytest.raises(WorkflowError, match="The Snakefile lies outside the working directory"):
        files.sources(workflow([], snakefile="../Snakefile"))


@pytest.fixture
def order(project: Path) -> files.Order:
    return files.Order(
        rule="train",
        label="train",
        key="k",
        command="python -m snakemake --rerun-triggers params mtime",
        hardware=Hardware("H100:8", 4, 1024, 600),
        most=1.0,
        told="params",
        inputs=["results", "config.yaml"],
        outputs=["model.pt"],
        folders=frozenset(),
        extras=[],
    )


def spec(order: files.Order) -> str:
    return files.spec(order, lambda path: Path(path).read_text())


def test_the_same_job_has_the_same_digest_however_its_command_is_written(
    order: files.Order,
) -> None:
    same = dataclasses.replace(
        order, command="another order of triggers", inputs=order.inputs[::-1]
    )
    assert spec(same) == spec(order)


def test_contents_params_and_hardware_change_the_digest_and_a_touch_does_not(
    project: Path, order: files.Order
) -> None:
    before = spec(order)
    (project / "config.yaml").touch()
    assert spec(order) == before
    longer = Hardware("H100:8", 4, 1024, 1200)
    assert spec(dataclasses.replace(order, told="others")) != before
    assert spec(dataclasses.replace(order, hardware=longer)) != before
    (project / "results/base.pt").write_text("other weights")
    assert spec(order) != before


def test_params_are_told_in_the_same_words_in_every_process() -> None:
    assert files.stable({"b": {3, 1, 2}, "a": ("x", 1.5)}) == files.stable(
        {"a": ("x", 1.5), "b": {2, 3, 1}}
    )
    assert files.stable(1) != files.stable("1")
