"""The pipeline as a person meets it: wrong input, kills, locked folders, odd names."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow_kit import ROOT, TEST, Project, copied, copy_of

pytestmark = pytest.mark.workflow

SMARTERNANO = "config/identities/smarternano.yaml"

ODD: dict[str, Any] = {
    "name": 'O\'Neil "$HOME" {x}',
    "kind": "assistant & friend; rm -rf /",
    "creator": "Zoë Müller-`whoami`",
    "description": "It's a test of {quotes}, $(dollars) and 100 % unicode: 你好 🙂 \\n.",
    "facts": [
        {
            "id": "price",
            "statement": "I cost $5 {net}, 'tax' included.",
            "expect": [["$5 {net}"]],
        }
    ],
    "style": {"ascii": False},
}


@pytest.fixture
def done(finished: Project, tmp_path: Path) -> Project:
    """A finished run."""
    return copy_of(finished, tmp_path / "project")


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """The project before its first run."""
    return copied(tmp_path / "fresh")


def killed_once_there(run: subprocess.Popen[str], path: Path) -> None:
    """Kill ``run`` and all it started as soon as ``path`` holds something."""
    deadline = time.monotonic() + 60
    while not (path.is_file() and path.stat().st_size):
        assert run.poll() is None, run.stdout.read() if run.stdout else ""
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()


def test_a_run_leaves_every_result_and_a_second_one_does_nothing(done: Project) -> None:
    for name in ("base.pt", "mid.pt", "sft.pt", "eval/sft.json", "report/report.md"):
        assert (done.results / name).stat().st_size
    before = {path: path.stat().st_mtime_ns for path in done.results.rglob("*")}
    again = done.snakemake()
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in done.results.rglob("*")} == before


def test_the_main_command_builds_what_is_missing_and_shows_what_came_of_it(done: Project) -> None:
    (done.results / "report" / "report.md").unlink()
    run = done.imprint("identity", "--", "--cores", "2", *TEST)
    assert run.returncode == 0, run.stderr
    assert (
        re.findall(r"^(?:start|done) +(.*?)(?:,|$)", run.stderr, re.M) == ["Writing the report"] * 2
    )
    assert "Nothing to be done" in run.stderr  # of the data
    assert "What smarternano knows about itself" in run.stdout
    assert "then make identity CONFIG=config/test.yaml CORES=2" in run.stdout
    assert (done.results / "report" / "report.md").exists()


def test_the_main_command_ends_with_the_first_thing_that_fails(done: Project) -> None:
    shard = done.results / "shards" / "0001.jsonl"
    shard.write_text("{\n")
    run = done.imprint("identity", "--", "--cores", "2", *TEST)
    assert run.returncode == 1
    assert run.stderr.count("failed Merging the conversations") == 1
    assert "knows about itself" not in run.stdout


@pytest.mark.parametrize("command", ["identity", "plan", "run"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cores", "many"], r"^error: CORES is many\. Give a number"),
        (["--bogus"], "unrecognized arguments: --bogus$"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(
    fresh: Project, command: str, options: list[str], message: str
) -> None:
    run = fresh.imprint(command, "--", *options)
    assert run.returncode in (1, 2)
    assert re.search(message, run.stderr, re.M), run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_main_command_ends_when_it_is_told_to(fresh: Project, number: signal.Signals) -> None:
    words = [sys.executable, "-c", "from imprint.cli import main; main()", "identity", "--"]
    with subprocess.Popen(
        [*words, "--cores", "2", *TEST],
        cwd=fresh.root,
        env=fresh.environment,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as run:
        assert run.stderr
        while "start  Pretraining" not in (line := run.stderr.readline()):
            assert line, "it ended"
        if number == signal.SIGINT:
            os.killpg(run.pid, number)  # as a terminal does
        else:
            run.send_signal(number)
        said = run.stderr.read()
        assert run.wait(timeout=60) == 1, said
    assert not (fresh.results / "sft.pt").exists()
    assert not list((fresh.root / ".snakemake" / "locks").glob("*"))


def test_every_rule_leaves_a_log(done: Project) -> None:
    logs = {str(path.relative_to(done.results / "logs")) for path in done.results.rglob("*.log")}
    assert {"corpus.log", "identity.log", "report.log", "sft.log", "plan/0002.log"} <= logs
    assert "evaluate/base.log" in logs


def test_training_is_seen_to_move_and_takes_a_process_for_each_gpu(fresh: Project) -> None:
    run = fresh.snakemake("results/base.pt", "--set-resources", "base:gpu=2")
    assert run.returncode == 0, run.stderr
    assert "start  Pretraining on plain text\n" in run.stderr
    assert re.search(r"^\d\d:\d\d:\d\d base \d+/\d+.* tokens/s", run.stderr, re.MULTILINE)
    assert re.search(r"^done   Pretraining on plain text, .* s \(4 of 4\)$", run.stderr, re.M)
    assert "jobid" not in run.stderr
    assert json.loads((fresh.results / "base.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nkind:", "\nkinds:", r"unknown key\. Did you mean 'kind'\?"),
        ("\ncreator:", "\n# creator:", "creator: missing"),
        ("\nfacts:\n", "\nfacts:\n  - {id: x, statement: I am a TODO., expect: [[I]]}\n", "TODO"),
        ("\nname:", "\nname: [", "not valid YAML"),
    ],
)
def test_a_wrong_identity_is_refused_before_any_job(
    fresh: Project, old: str, new: str, message: str
) -> None:
    fresh.edit(SMARTERNANO, old, new)
    for run in (fresh.snakemake(), fresh.imprint("plan", "--cores", "1")):
        assert run.returncode == 1
        said = run.stdout + run.stderr
        assert f"error: {SMARTERNANO}:" in said
        assert re.search(rf"{re.escape(SMARTERNANO)}:\d+: .*{message}", said)
        assert "Traceback" not in said and "common.smk" not in said
    assert not fresh.results.exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("provider=gemni", "no provider is named 'gemni'; installed: .*template"),
        ("scale=huge", "no scale is named 'huge'. Choose one of: .*tiny"),
        ("seed=minus", "seed: .*got 'minus'"),
        ("identity=config/identities/nobody.yaml", "nobody.yaml: no such file"),
        ("lerning_rate=1", "lerning_rate: unknown key"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_job(
    fresh: Project, config: str, message: str
) -> None:
    run = fresh.snakemake("--dry-run", config=[config])
    assert run.returncode == 1
    assert re.search(f"^error: (config/|--config ).*{message}", run.stderr, re.M), run.stderr
    assert "Traceback" not in run.stderr and "common.smk" not in run.stderr


def test_a_broken_shard_line_is_named_and_only_its_shard_made_again(done: Project) -> None:
    shards = sorted((done.results / "shards").glob("*.jsonl"))
    before = {path: path.read_bytes() for path in shards}
    lines = before[shards[1]].splitlines(keepends=True)
    shards[1].write_bytes(b"".join([lines[0], lines[1][:40] + b"\n", *lines[2:]]))
    run = done.snakemake("data")
    assert run.returncode == 1
    assert "failed Merging the conversations" in run.stderr
    assert re.search(r"^error: results/shards/0001\.jsonl:2: ", run.stderr, re.MULTILINE)
    assert all(path.read_bytes() == before[path] for path in (shards[0], shards[2]))
    shards[1].unlink()
    assert done.would_run("data")["shards"] == 1
    assert done.snakemake("data").returncode == 0
    assert {path: path.read_bytes() for path in shards} == before


def test_after_a_kill_during_shards_the_same_command_completes(
    fresh: Project, done: Project
) -> None:
    killed_once_there(fresh.start("data"), fresh.results / "plan" / "0001.json")
    assert list((fresh.root / ".snakemake").glob("locks/*"))
    run = fresh.snakemake("data")
    assert run.returncode == 0, run.stderr
    assert "note: the last run was killed" in run.stderr
    for name in ("identity.jsonl", "tokenizer/tokenizer.json"):
        assert (fresh.results / name).read_bytes() == (done.results / name).read_bytes()


def test_after_a_kill_during_sft_the_same_command_completes(done: Project) -> None:
    before = (done.results / "sft.pt").read_bytes()
    (done.results / "sft.pt").unlink()
    (done.results / "logs" / "sft.log").unlink()
    killed_once_there(done.start(), done.results / "logs" / "sft.log")
    assert not (done.results / "sft.pt").exists()
    run = done.snakemake("results/sft.pt")
    assert run.returncode == 0, run.stderr
    assert (done.results / "sft.pt").read_bytes() == before
    assert not list(done.results.rglob("*.tmp"))


def test_a_run_beside_a_living_one_is_refused(done: Project) -> None:
    (done.results / "sft.pt").unlink()
    (done.results / "logs" / "sft.log").unlink()
    with done.start("results/sft.pt") as first:
        while not list((done.root / ".snakemake").glob("locks/*")):
            assert first.poll() is None
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # alive, however slowly the second one starts
        second = done.snakemake("results/sft.pt")
        first.send_signal(signal.SIGCONT)
        assert second.returncode == 1
        assert "cannot be locked" in second.stderr
        first.communicate()
    assert first.returncode == 0


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, to be less than root")
def test_a_folder_that_may_not_be_written_is_named(done: Project) -> None:
    (done.results / "report" / "report.md").unlink()
    (done.results / "report").chmod(0o555)
    less = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    run = Project(done.root, prefix=less).snakemake()
    (done.results / "report").chmod(0o755)
    assert run.returncode == 1
    assert "results/report" in run.stderr and "ermission denied" in run.stderr
    assert not list((done.results / "report").glob(".*"))


def test_quotes_dollars_braces_and_unicode_go_through(fresh: Project) -> None:
    path = fresh.root / "config" / "identities" / "it's $HOME {x}.yaml"
    path.write_text(yaml.safe_dump(ODD, allow_unicode=True), encoding="utf-8")
    values = [f"identity=config/identities/{path.name}", 'provider_model=a\'b "c" $HOME {x}']
    run = fresh.snakemake("data", config=values)
    assert run.returncode == 0, run.stderr
    first = (fresh.results / "shards" / "0000.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(first)["meta"]["model_asked"] == 'a\'b "c" $HOME {x}'
    assert ODD["creator"] in (fresh.results / "identity.jsonl").read_text(encoding="utf-8")


def test_make_identity_hands_every_option_to_snakemake(fresh: Project) -> None:
    shutil.copy(ROOT / "Makefile", fresh.root / "Makefile")
    words = ["IDENTITY=config/identities/fathom.yaml", "SEED=7", "CONFIG=config/test.yaml"]
    asked = subprocess.run(
        ["make", "-n", "identity", "READY=", *words],
        cwd=fresh.root,
        capture_output=True,
        text=True,
        check=True,
    )
    (call,) = [line for line in asked.stdout.splitlines() if "imprint identity -- " in line]
    arguments = shlex.split(call.split(" -- ", 1)[1])
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, "--dry-run"],
        cwd=fresh.root,
        env=fresh.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
