"""The plugin by itself, as others would install it, and its page."""

import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import fields
from email.parser import Parser
from pathlib import Path

import pytest

from executor.kit import SOURCE, Mini
from snakemake_executor_plugin_modal import ExecutorSettings

PACKAGE = SOURCE / "snakemake_executor_plugin_modal"
README = PACKAGE / "README.md"

LOADED = """
import sys
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
plugin = ExecutorPluginRegistry().get_plugin("modal")
print(sys.modules["snakemake_executor_plugin_modal"].__file__)
print(plugin.common_settings.can_transfer_local_files)
print(sorted(name for name in sys.modules if name.split(".")[0] in ("imprint", "modal")))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the folder, built from what is installed."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_plugin_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        told = Parser().parsestr(archive.read(about).decode())
    modules = [*PACKAGE.glob("*.py"), PACKAGE / "py.typed"]
    plugin = {path.relative_to(SOURCE).as_posix() for path in modules}
    assert {name for name in names if ".dist-info/" not in name} == plugin
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert told["Name"] == "snakemake-executor-plugin-modal"
    assert told.get_payload() == README.read_text(encoding="utf-8")
    needs = {re.split(r"[<>=]", line)[0] for line in told.get_all("Requires-Dist", [])}
    assert needs == {
        "modal",
        "snakemake-interface-common",
        "snakemake-interface-executor-plugins",
    }
    assert (PACKAGE / "LICENSE").read_text() == (SOURCE.parent / "LICENSE").read_text()


def test_snakemake_finds_the_plugin_in_the_wheel_and_it_loads_little(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert told == [str(tmp_path / PACKAGE.name / "__init__.py"), "True", "[]"]


def test_the_page_lists_every_setting_and_no_other() -> None:
    table = re.findall(r"^\| `--modal-([\w-]+)` \|", README.read_text(encoding="utf-8"), re.M)
    assert table == [field.name.replace("_", "-") for field in fields(ExecutorSettings)]


@pytest.mark.workflow
def test_the_workflow_and_the_profile_on_the_page_run(mini: Mini) -> None:
    text = README.read_text(encoding="utf-8")
    for path in mini.root.iterdir():
        path.unlink()
    for name in ("Snakefile", "profiles/modal/config.yaml"):
        block = re.search(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```", text, re.M | re.S)
        assert block, name
        (mini.root / name).parent.mkdir(parents=True, exist_ok=True)
        (mini.root / name).write_text(block[1])
    mini.profiled("profiles/modal").ends()
    assert [call.gpu for call in mini.cloud.spawned] == ["A10:1"]
