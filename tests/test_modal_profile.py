"""profiles/modal: what it says is possible, priced, and what the other profiles say as well."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import modal_local
from imports import kit
from imprint.shape import ModelConfig
from reference import lively
from snakemake_executor_plugin_modal import ExecutorSettings, money
from snakemake_executor_plugin_modal.hardware import asked
from workflow_kit import ROOT, Project, copied

SHARED = (
    *("rerun-triggers", "max-checksum-file-size", "rerun-incomplete"),
    *("logger", "show-failed-logs"),
)


def profile(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    return found


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return copied(tmp_path / "project")


def plan(project: Project, *options: str, config: str = "scale=d20") -> str:
    """Return what ``imprint plan`` says for the profile, in lines as long as they like."""
    options = ("--workflow-profile", "profiles/modal", *options)
    command = [sys.executable, "-c", "from imprint.cli import main; main()", "plan", "--"]
    done = subprocess.run(
        [*command, *options, "--config", config],
        cwd=project.root,
        env={**project.environment, "COLUMNS": "200"},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(table: str, stage: str) -> str:
    [found] = [line for line in table.splitlines() if line.split()[:1] == [stage]]
    return " ".join(found.split())


def test_profiles_agree_on_what_is_out_of_date_and_what_is_shown() -> None:
    default, modal = profile("default"), profile("modal")
    assert {key: modal.get(key) for key in SHARED} == {key: default.get(key) for key in SHARED}


def test_every_setting_and_every_rule_that_the_profile_names_exists() -> None:
    found = profile("modal")
    settings = {f"modal-{name.replace('_', '-')}" for name in ExecutorSettings.__annotations__}
    assert {key for key in found if key.startswith("modal-")} <= settings
    rules = {path.stem for path in (ROOT / "rules").glob("*.smk")}
    named = {*found["set-resources"], *found["set-threads"], *found["modal-rules"]}
    assert named <= rules
    assert named == {*found["set-resources"]} == {*found["set-threads"]}


@pytest.mark.parametrize(
    ("rule", "machine", "said"),
    [
        ("mid", "8 x H100", "Eight H100 with 16 cores and 64 GB are ${usd:.2f} an hour"),
        ("sft", "1 x H100", "one with 4 cores and 32 GB ${usd:.2f}."),
    ],
)
def test_h100_cost_what_the_page_says(rule: str, machine: str, said: str) -> None:
    found = profile("modal")
    given = found["set-resources"][rule]
    mebibytes = round(given["mem_mb"] * 1e6 / 2**20)
    wanted = asked({**given, "mem_mib": mebibytes}, found["set-threads"][rule])
    usd = money.rate(wanted.gpu, wanted.cpu, wanted.memory_mib)
    assert str(wanted) == machine
    assert said.format(usd=usd) in (ROOT / "docs" / "modal.md").read_text(encoding="utf-8")


@pytest.mark.workflow
def test_a_plan_shows_machines_hours_and_dollars(project: Project) -> None:
    shown = plan(project)
    assert row(shown, "base").startswith("base stale 1 8 x H100 3.4 h 112.89")
    assert row(shown, "mid").startswith("mid stale 1 8 x H100 <= 60 min <= 32.83")
    assert row(shown, "evaluate").startswith("evaluate stale 3 1 x L40S <= 60 min <= ")
    assert row(shown, "tokens").startswith("tokens stale 4 16 cores <= 5.5 h <= ")
    assert row(shown, "report") == "report stale 1 ? missing, after evaluate"
    assert f"rates of {money.RATES_DATE}" in shown
    assert row(shown, "sft").startswith("sft stale 1 1 x H100 <= 40 min <= 2.92")
    refused = plan(project, "--modal-max-usd", "20")
    assert "This would be refused: What is to run on Modal could cost $" in refused


@pytest.mark.workflow
def test_a_plan_says_what_a_fresh_stage_has_cost(project: Project) -> None:
    (project.results).mkdir()
    (project.results / "base.json").write_text(json.dumps({"cost_usd": 84.125, "seconds": 1.0}))
    shown = plan(project, "results/tokenizer/tokenizer.json")
    assert "base ($84.12 saved)" in shown
    assert "8 x H100" not in shown


@pytest.mark.workflow
def test_an_import_needs_no_gpu(project: Project) -> None:
    folder = project.root / "nanochat"
    model = lively(ModelConfig(depth=2, vocabulary=kit.VOCABULARY, context=128))
    kit.checkpoint(folder / "base_checkpoints" / "d2", model, step=12)
    kit.pickled(folder / "tokenizer" / "tokenizer.pkl", kit.encoding(kit.RANKS))
    shown = plan(project, config='base={"from": "nanochat"}')
    assert row(shown, "base").startswith("base stale 1 16 cores")
    assert row(shown, "mid").startswith("mid stale 1 8 x H100")


def test_the_makefile_limits_cores_only_where_the_jobs_run() -> None:
    def options(*given: str) -> str:
        command = ["make", "-n", "-s", "plan", *given]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout

    assert "--cores all --workflow-profile profiles/default" in options()
    assert "--cores 3 " in options("CORES=3", "PROFILE=mine")
    assert "cores" not in options("PROFILE=modal")
    assert "--local-cores 3 " in options("PROFILE=modal", "CORES=3")


def test_the_copy_that_modal_local_works_on_is_what_git_would_track(tmp_path: Path) -> None:
    copy = modal_local.copied(tmp_path / "copy")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=copy, capture_output=True, text=True
    ).stdout.split()
    assert {"Snakefile", "README.md", "requirements.txt", "profiles/modal/config.yaml"} <= {*listed}
    assert not (copy / "results").exists() and not (copy / ".venv").exists()
