"""Options on their way from make to Snakemake: what is refused, and in which words."""

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from imprint import workflow
from imprint.commands.results import following
from imprint.errors import ConfigError, ImprintError, StorageError
from imprint.settings import resolve
from imprint.workflow import Job

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("option", ["--cores", "--local-cores"])
@pytest.mark.parametrize("given", ["0", "-3", "many", "1.5", ""])
def test_a_number_of_cores_with_which_nothing_would_run_is_refused(option: str, given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        workflow.configured([option, given])
    told = given or "empty"
    assert str(caught.value) == f"CORES is {told}. Give a number from 1 on, or all."


@pytest.mark.parametrize("given", ["1", "16", "all"])
def test_a_number_of_cores_is_taken(given: str) -> None:
    assert workflow.configured(["--cores", given]).scale == "tiny"


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("profiles/modla", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"no profile, .* profiles: default, modal\.$"):
            workflow.configured(["--workflow-profile", name])
    (tmp_path / "config.v9+.yaml").write_text("keep-going: true\n", encoding="utf-8")
    for name in (str(tmp_path), "default", "profiles/default", "none"):
        assert workflow.configured(["--workflow-profile", name]).scale == "tiny"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--config", "seed=-1"], "SEED on the command line: seed: .*got -1"),
        (["--config", "seed=7", "conversations=0"], "COUNT on the command line: conversations: "),
        (["--config", "scale=huge"], "SCALE on the command line: scale: no scale is named 'huge'"),
        (["--config", "provider=gemni"], "PROVIDER on the command line: provider: .*'gemni'"),
        (["--config", "lerning=1"], "--config lerning: lerning: unknown key"),
        (["--configfile", "no.yaml"], r"no\.yaml: no such file"),
        (["--configfile", "{over}"], "{over}:2: sede: unknown key. Did you mean 'seed'"),
    ],
)
def test_a_wrong_setting_is_told_where_it_comes_from(
    tmp_path: Path, options: list[str], told: str
) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("shard_size: 5\nsede: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"^{told.replace('{over}', str(over))}"):
        workflow.configured([option.replace("{over}", str(over)) for option in options])


def test_a_wrong_setting_that_is_mended_further_up_is_taken(tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("seed: -1\n", encoding="utf-8")
    assert workflow.configured(["--configfile", str(over), "--config", "seed=5"]).seed == 5


def test_a_line_is_named_only_if_the_file_has_the_value(tmp_path: Path) -> None:
    (tmp_path / "config" / "scales").mkdir(parents=True)
    for name in ("config.yaml", "scales/tiny.yaml"):
        text = (ROOT / "config" / name).read_text(encoding="utf-8")
        (tmp_path / "config" / name).write_text(text, encoding="utf-8")
    given: dict[str, Any] = {"identity": "x.yaml"}
    with pytest.raises(ConfigError, match=r"^--config or --configfile: seed: .*got -1"):
        resolve({**given, "seed": -1}, root=tmp_path)
    (tmp_path / "config" / "config.yaml").write_text("identity: x.yaml\nseed: -1\n")
    with pytest.raises(ConfigError, match=r"^config/config\.yaml:2: seed: .*got -1"):
        resolve({**given, "seed": -1}, root=tmp_path)


def test_make_hands_on_the_settings_by_the_names_that_errors_use() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert dict(re.findall(r'"(\w+)=\$\((\w+)\)"', makefile)) == workflow.VARIABLES


def test_options_are_said_as_make_takes_them() -> None:
    given = ["--cores", "2", "--workflow-profile", "profiles/modal", "--configfile", "a.yaml"]
    words = workflow.spoken([*given, "--config", "identity=my file.yaml", "sft={}"])
    assert words == ["CONFIG=a.yaml", "IDENTITY='my file.yaml'", "PROFILE=modal", "CORES=2"]
    assert workflow.spoken(["--cores", "all", "--workflow-profile", "profiles/default"]) == []
    mine = ["--workflow-profile", "profiles/default", "--local-cores", "3"]
    assert workflow.spoken(mine) == ["CORES=3"]


def test_what_to_type_next_keeps_the_options_of_the_run() -> None:
    found = {
        "identity": {"ci95": [0.1, 0.9], "accuracy": 0.5},
        "about": {"file": "config/identities/fathom.yaml"},
    }
    told = "\n".join(following(Path("results"), {"sft": found}, ["CONFIG=a.yaml", "SEED=7"]))
    assert "make report CONFIG=a.yaml SEED=7 " in told
    assert told.endswith("then make identity CONFIG=a.yaml SEED=7")
    alone = "\n".join(following(Path("results"), {"sft": found}))
    assert alone.endswith("then make identity IDENTITY=config/identities/fathom.yaml")


@pytest.mark.parametrize("refuses", [False, True])
def test_read_only_results_are_told_before_a_job_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: bool
) -> None:
    def read_only(dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

    def planned(options: object) -> list[Job]:
        if refuses:
            raise ImprintError("Write-protected output files for rule sft")
        return [Job("sft", "")]

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    monkeypatch.setattr(workflow, "dry_run", planned)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a job was started"))
    with pytest.raises(StorageError, match=r"^results: may not be written \(Read-only file system"):
        workflow.run_in_turn([["data"], []])


def test_read_only_results_do_when_nothing_is_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "_unwritable", lambda folder: StorageError(str(folder)))
    monkeypatch.setattr(workflow, "dry_run", lambda options: [])
    children = iter([3, 4])
    monkeypatch.setattr(os, "fork", lambda: next(children))
    monkeypatch.setattr(workflow, "_waited_for", lambda child: 0)
    assert workflow.run_in_turn([["data"], []]) == 0
    assert not list(children)
