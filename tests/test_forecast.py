"""Snakemake's reasons in plain words, and how long things took."""

import base64
import json
from pathlib import Path

import pytest

from imprint.commands.planning import conclusion, duration, table
from imprint.forecast import Job, Line, explain, forecast


def changed(before: str, now: str) -> str:
    """Return the reason that Snakemake gives for changed params, listed as it lists them."""
    return (
        "Params have changed since last execution: "
        f"Union of exclusive params before and now across all output: before: {before} now: {now} "
    )


def line(stage: str, *, jobs: int = 1, seconds: float | None = 2.0, cost: float = 0.0) -> Line:
    return Line(stage, jobs, "missing" if jobs else "", seconds, cost)


@pytest.mark.parametrize(
    ("reason", "stage", "expected"),
    [
        ("Missing output files: results/sft.pt", "sft", ["missing"]),
        ("Updated input files: results/base.pt", "mid", ["results/base.pt has changed"]),
        ("Input files updated by another job: results/mid.pt", "sft", ["after mid"]),
        (
            "Input files updated by another job: results/mid.pt, results/identity.jsonl, "
            "results/tokenizer/tokenizer.json",
            "sft",
            ["after mid"],  # the others are behind it
        ),
        (
            "Input files updated by another job: results/metrics/sft.jsonl, results/eval/sft.json",
            "report",
            ["after evaluate"],
        ),
        (changed(repr("a" * 64), repr("b" * 64)), "plan", ["identity changed"]),
        (changed(repr("a" * 12), repr("b" * 12)), "report", ["code changed"]),
        (changed("'sft version 1'", "'sft version 2'"), "sft", ["version raised to 2"]),
        (
            changed(repr('{"matrix_lr": 0.02, "seed": 1}'), repr('{"matrix_lr": 0.01, "seed": 1}')),
            "sft",
            ["sft.matrix_lr 0.02 -> 0.01"],
        ),
        (
            changed(
                repr('{"training": {"tokens": 5}, "model": {"depth": 1}}'),
                repr('{"training": {"tokens": 6}, "model": {"depth": 2}}'),
            ),
            "base",
            ["base.model.depth 1 -> 2", "base.tokens 5 -> 6"],
        ),
        (
            changed("{'per_suite': 40}", "{'per_suite': 9}"),
            "evaluate",
            ["evaluate.per_suite 40 -> 9"],
        ),
        (changed("1337", "7"), "plan", ["seed or number of conversations changed (1337 -> 7)"]),
        ("Set of input files has changed since last execution", "mid", ["has other inputs"]),
    ],
)
def test_a_reason_is_said_in_plain_words(reason: str, stage: str, expected: list[str]) -> None:
    assert explain(reason, stage) == expected


def test_time_and_cost_come_from_the_last_run(tmp_path: Path) -> None:
    jobs = [Job(stage, "Missing output files: x") for stage in [*["shards"] * 3, "base", "report"]]
    shards = tmp_path / "results" / "shards"
    shards.mkdir(parents=True)
    for name, seconds in (("0000", 2.0), ("0001", 4.0)):
        (shards / f"{name}.json").write_text(json.dumps({"seconds": seconds, "cost_usd": 0.5}))
    report = tmp_path / "results" / "report" / "report.md"
    report.parent.mkdir()
    report.touch()
    metadata = tmp_path / ".snakemake" / "metadata"
    metadata.mkdir(parents=True)
    name = base64.b64encode(b"results/report/report.md").decode()
    (metadata / name).write_text(json.dumps({"starttime": 10.0, "endtime": 11.5}))

    found = {line.stage: line for line in forecast(jobs, root=tmp_path)}
    assert (found["shards"].jobs, found["shards"].seconds) == (3, 9.0)
    assert found["shards"].cost_usd == 1.5
    assert found["base"].seconds is None
    assert found["report"].seconds == 1.5
    assert (found["sft"].jobs, found["sft"].why) == (0, "")


def test_jobs_of_a_stage_name_what_they_wait_for_once(tmp_path: Path) -> None:
    waits = "Input files updated by another job: results/tokenizer/tokenizer.json"
    jobs = [Job("tokens", waits), Job("tokens", f"{waits}, results/identity.jsonl")]
    found = {line.stage: line.why for line in forecast(jobs, root=tmp_path)}
    assert found["tokens"] == "after tokenizer, identity"


def test_the_conclusion_adds_up_and_says_what_is_left_alone() -> None:
    lines = [
        line("identity", seconds=30.0, cost=0.25),
        line("base", jobs=0),
        line("mid", seconds=400.0),
        line("report", seconds=None),
    ]
    total, kept, note = conclusion(lines)
    assert total == (
        "3 jobs, about 7 min of work, judged by the last run; not yet timed: report; about $0.25."
    )
    assert kept == "Not rebuilt: base."
    assert "leaves mid alone" in note


def test_nothing_to_do_is_said() -> None:
    assert conclusion([line("base", jobs=0)]) == ["Nothing to do: everything is up to date."]


def test_the_table_has_a_row_a_stage() -> None:
    assert table([line("base", jobs=0), line("mid")]).row_count == 2


def test_durations_are_for_people() -> None:
    shown = [duration(seconds) for seconds in (None, 0.2, 99.0, 130.0, 7200.0)]
    assert shown == ["?", "< 1 s", "99 s", "2 min", "2.0 h"]
