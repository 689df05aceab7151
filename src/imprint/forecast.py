"""What a run would do before it does it: which stages are out of date, why, and for how long.

Snakemake decides, in a dry run inside this process; here its reasons become plain words and the
manifests of the last run become an estimate.
"""

import base64
import contextlib
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from imprint.errors import ImprintError
from imprint.reasons import explain
from imprint.recipe import STAGES

MANIFESTS = {
    "shards": "shards/*.json",
    "identity": "identity.json",
    "corpus": "corpus/manifest.json",
    "tokenizer": "tokenizer/manifest.json",
    "tokens": "tokens/*.manifest.json",
    "base": "base.json",
    "mid": "mid.json",
    "sft": "sft.json",
}
"""Where under results/ each stage leaves its manifests."""

PRODUCTS = {"plan": "plan/*.json", "evaluate": "eval/*.json", "report": "report/report.md"}
"""Files of the stages without a manifest; Snakemake knows how long they took."""


@dataclass(frozen=True)
class Job:
    """A job that Snakemake would run."""

    stage: str
    reason: str
    """In Snakemake's words."""
    wildcards: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What it asks for: ``gpu``, ``gpu_model``, ``mem_mib``, ``runtime`` in minutes, ..."""
    threads: int = 1


@dataclass(frozen=True)
class Line:
    """What would happen to a stage."""

    stage: str
    jobs: int
    """How many would run; 0 if the stage is fresh."""
    why: str
    """In plain words; empty if the stage is fresh."""
    seconds: float | None
    """Work of these jobs, judged by the last run; None if there was none."""
    cost_usd: float
    """Of these jobs; of a fresh stage, what it has cost."""
    machine: str = ""
    """What they would run on for money; empty for this machine."""
    most: bool = False
    """Whether time and cost are limits, because nobody knows better."""


def forecast(jobs: Sequence[Job], *, root: Path = Path()) -> list[Line]:
    """Return what running ``jobs`` would mean, a line a stage.

    Args:
        jobs: What `dry_run` says.
        root: The project's folder, the current one.
    """
    return [_line(stage, [job for job in jobs if job.stage == stage], root) for stage in STAGES]


def _line(stage: str, jobs: list[Job], root: Path) -> Line:
    parts = dict.fromkeys(part for job in jobs for part in explain(job.reason, stage))
    afters = (part.removeprefix("after ") for part in parts if part.startswith("after "))
    above = dict.fromkeys(name for part in afters for name in part.split(", "))
    reasons = [part for part in parts if not part.startswith("after ")]
    if above:
        reasons.append(f"after {', '.join(above)}")
    past, cost = _past_s(stage, root), _past_usd(stage, root)
    return Line(
        stage=stage,
        jobs=len(jobs),
        why=", ".join(reasons),
        seconds=fmean(past) * len(jobs) if past else None,
        cost_usd=fmean(cost) * (len(jobs) or len(cost)) if cost else 0.0,
    )


class _Witness(logging.Filter):
    """Keeps the jobs and errors that Snakemake logs, and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.errors: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        if getattr(event, "name", "") == "JOB_INFO":
            told = vars(record)
            asked = told.get("resources")
            self.jobs.append(
                Job(
                    stage=told.get("rule_name", ""),
                    reason=told.get("reason", ""),
                    wildcards=told.get("wildcards") or {},
                    resources=dict(asked.items()) if asked else {},
                    threads=told.get("threads") or 1,
                )
            )
        elif record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())
        return False


def dry_run(options: Sequence[str]) -> list[Job]:
    """Return the jobs that Snakemake would run with ``options``.

    Raises:
        ImprintError: Snakemake refuses to plan at all; its message is passed on.
    """
    # Jobs are shown with the threads that they ask for, not with those of this machine.
    dry = [*options, "--dry-run", "--nolock", "--cores", "1024"]
    return [job for job in snakemake(dry) if job.stage in STAGES]


def snakemake(options: Sequence[str]) -> list[Job]:
    """Run Snakemake in this process, silently; return the jobs that it ran or would run.

    Raises:
        ImprintError: It did not succeed; its message is passed on.
    """
    from snakemake import cli

    witness = _Witness()
    log = logging.getLogger("snakemake.logging")
    log.addFilter(witness)
    try:
        # It tells which profile it uses, before there is a log.
        with contextlib.redirect_stderr(io.StringIO()):
            parser, arguments = cli.parse_args(list(options))
        succeeded = cli.args_to_api(arguments, parser)
    finally:
        log.removeFilter(witness)
    if not succeeded:
        raise ImprintError("\n".join(witness.errors) or "Snakemake did not succeed.")
    return witness.jobs


def _past_s(stage: str, root: Path) -> list[float]:
    """Return how long each known job of ``stage`` took, in seconds."""
    if stage in MANIFESTS:
        return [float(found["seconds"]) for found in _manifests(stage, root) if "seconds" in found]
    times = (_recorded_s(root, path) for path in (root / "results").glob(PRODUCTS[stage]))
    return [seconds for seconds in times if seconds is not None]


def _past_usd(stage: str, root: Path) -> list[float]:
    return [float(found.get("cost_usd", 0)) for found in _manifests(stage, root)]


def _manifests(stage: str, root: Path) -> Iterator[dict[str, Any]]:
    if stage not in MANIFESTS:
        return
    for path in sorted((root / "results").glob(MANIFESTS[stage])):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # a run will say what is wrong with it
        if isinstance(found, dict):
            yield found


def _recorded_s(root: Path, product: Path) -> float | None:
    """Return how long the job behind ``product`` took, as Snakemake has it; None if it has not."""
    name = base64.b64encode(str(product.relative_to(root)).encode()).decode()
    try:
        record = json.loads((root / ".snakemake" / "metadata" / name).read_text(encoding="utf-8"))
        return max(0.0, float(record["endtime"]) - float(record["starttime"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
