"""Snakemake's reasons in plain words, and how long things took."""

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from imprint import recipe, renting
from imprint.commands.planning import conclusion, duration, table
from imprint.forecast import Line, forecast
from imprint.providers.template import Template
from imprint.reasons import explain
from imprint.settings import Settings, resolve
from imprint.workflow import Job

ROOT = Path(__file__).parent.parent


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
        (changed("1337", "7"), "plan", ["seed or number of conversations changed"]),
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

    found = {line.stage: line for line in forecast(jobs, d20(), root=tmp_path)}
    assert (found["shards"].jobs, found["shards"].seconds) == (3, 9.0)
    assert found["shards"].cost_usd == 1.5
    assert found["base"].seconds is None
    assert found["report"].seconds == 1.5
    assert (found["sft"].jobs, found["sft"].why) == (0, "")


def test_what_took_its_time_at_another_scale_is_no_measure(tmp_path: Path) -> None:
    tiny = d20(scale="tiny")
    results = tmp_path / "results"
    for stage in ("base", "mid", "sft"):
        told = {"settings": recipe.settings(stage, tiny), "seconds": 20.0, "cost_usd": 1.5}
        write(results / f"{stage}.json", told)
    write(
        results / "identity.json", {"funnel": {"planned": Template.conversations}, "seconds": 7.0}
    )

    def times(settings: Settings, *fresh: str) -> dict[str, tuple[float | None, float]]:
        jobs = [Job(stage, "") for stage in ("identity", "base", "mid", "sft")]
        lines = forecast([job for job in jobs if job.stage not in fresh], settings, root=tmp_path)
        return {line.stage: (line.seconds, line.cost_usd) for line in lines}

    known = times(d20(scale="tiny", seed=7, sft={"matrix_lr": 0.1}))
    assert known["identity"] == (7.0, 0.0) and known["base"] == known["sft"] == (20.0, 1.5)
    other = times(d20(), "base")
    assert other["identity"] == (7.0, 0.0)
    assert other["mid"] == other["sft"] == (None, 0.0)
    assert other["base"] == (0.0, 1.5)  # what it has cost
    longer = times(d20(scale="tiny", base={"tokens": 300_000}))
    assert longer["base"][0] is None and longer["mid"] == (20.0, 1.5)
    fewer = times(d20(scale="tiny", conversations=900))
    assert fewer["identity"][0] is fewer["mid"][0] is None and fewer["base"] == (20.0, 1.5)


def test_jobs_of_a_stage_name_what_they_wait_for_once(tmp_path: Path) -> None:
    waits = "Input files updated by another job: results/tokenizer/tokenizer.json"
    jobs = [Job("tokens", waits), Job("tokens", f"{waits}, results/identity.jsonl")]
    found = {line.stage: line.why for line in forecast(jobs, d20(), root=tmp_path)}
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
        "3 jobs, not yet timed: report; the others about 7 min of work, judged by the last run; "
        "about $0.25."
    )
    assert kept == "Not rebuilt: base."
    assert "leaves mid alone" in note


def test_what_is_known_and_what_is_at_most_are_told_apart() -> None:
    lines = [
        replace(line("base", seconds=12_000.0, cost=110.0), machine="8 x H100"),
        replace(line("mid", seconds=3600.0, cost=33.0), machine="8 x H100", most=True),
        line("tokenizer", jobs=0, cost=2.5),
    ]
    total, kept = conclusion(lines)
    assert total == (
        "2 jobs, about 3.3 h of work, judged by the last run and the speed of GPUs; about $110.00; "
        "and at most $33.00 for what cannot be known before it has run once: mid."
    )
    assert kept == "Not rebuilt: tokenizer ($2.50 saved)."
    shown = io.StringIO()
    Console(file=shown, width=80).print(table(lines))
    [head, _, *rows] = [text.split() for text in shown.getvalue().splitlines() if text.strip()]
    assert head == ["stage", "state", "jobs", "on", "time", "USD", "why"]
    assert " ".join(rows[1]) == "mid stale 1 8 x H100 <= 60 min <= 33.00 missing"


H100S = {"gpu": 8, "gpu_model": "H100", "mem_mib": 61_036, "runtime": 60}
RATE = 8 * 3.95 + 16 * 0.0000131 * 3600 + 61_036 / 1024 * 0.00000222 * 3600


def d20(**changes: object) -> Settings:
    given = {"identity": "config/identities/smarternano.yaml", "scale": "d20"}
    return resolve({**given, **changes}, root=ROOT)


def priced(root: Path, job: Job, settings: Settings) -> Line:
    there = renting.rented([job], ["corpus"])
    [found] = renting.priced([line(job.stage)], there, settings, root=root)
    return found


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_pretraining_costs_its_operations_at_two_fifths_of_the_peak(tmp_path: Path) -> None:
    found = priced(tmp_path, Job("base", "", resources=H100S, threads=16), d20())
    assert found.machine == "8 x H100" and not found.most
    assert found.seconds == pytest.approx(3_491_758_080 * 20 * 560_988_160 / (8 * 989e12 * 0.4))
    assert found.seconds and found.cost_usd == pytest.approx(found.seconds / 3600 * RATE, rel=1e-3)


def test_a_speed_that_was_measured_on_such_gpus_counts_more(tmp_path: Path) -> None:
    job = Job("base", "", resources=H100S, threads=16)
    last = {"processes": 8, "tokens_per_s": 1e6, "flops_per_token": 1e9}
    for device, speed in {"NVIDIA H100 80GB HBM3": 1e15, "NVIDIA L4": 8 * 989e12 * 0.4}.items():
        write(tmp_path / "results" / "base.json", {**last, "device": device})
        found = priced(tmp_path, job, d20())
        assert found.seconds == pytest.approx(3_491_758_080 * 20 * 560_988_160 / speed)


def test_conversations_are_priced_once_they_are_tokens_and_at_most_before(tmp_path: Path) -> None:
    job, settings = Job("mid", "", resources=H100S, threads=16), d20()
    before = priced(tmp_path, job, settings)
    assert (before.most, before.seconds) == (True, 3600)
    assert before.cost_usd == pytest.approx(RATE, rel=1e-3)
    tokens = tmp_path / "results" / "tokens"
    write(tokens / "identity.manifest.json", {"settings": {}, "tokens": {"train": 50_000}})
    write(tokens / "identity.json", {"parts": {"train": {"documents": 1000}}})
    chat = recipe.chats("mid", settings)
    write(tokens / "mid.manifest.json", {"settings": chat, "tokens": {"train": 600_000}})
    after = priced(tmp_path, job, settings)
    assert not after.most  # 1,000 conversations are seen 8 times
    assert after.seconds == pytest.approx(3_491_758_080 * 1_000_000 / (8 * 989e12 * 0.4))
    write(tokens / "mid.manifest.json", {"settings": {**chat, "chat": {}}, "tokens": {}})
    assert priced(tmp_path, job, settings).most


def test_a_job_without_a_gpu_takes_as_long_as_when_it_had_the_same_to_do(tmp_path: Path) -> None:
    job = Job("corpus", "", resources={"mem_mib": 7630, "runtime": 180}, threads=4)
    assert priced(tmp_path, job, d20()).seconds == 3 * 3600
    told = {"settings": recipe.settings("corpus", d20(seed=7)), "seconds": 700.0}
    write(tmp_path / "results" / "corpus" / "manifest.json", told)
    found = priced(tmp_path, job, d20())
    assert (found.machine, found.seconds, found.most) == ("4 cores", 700.0, False)
    assert priced(tmp_path, job, d20(corpus={"characters": 99})).most
    assert renting.rented([Job("report", "", resources={"mem_mib": 900})], ["corpus"]) == []


def test_nothing_to_do_is_said() -> None:
    assert conclusion([line("base", jobs=0)]) == ["Nothing to do: everything is up to date."]


def test_the_table_has_a_row_a_stage() -> None:
    assert table([line("base", jobs=0), line("mid")]).row_count == 2


def test_durations_are_for_people() -> None:
    shown = [duration(seconds) for seconds in (None, 0.2, 99.0, 130.0, 7200.0)]
    assert shown == ["?", "< 1 s", "99 s", "2 min", "2.0 h"]
