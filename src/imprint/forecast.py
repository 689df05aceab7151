"""What a run would do before it does it: which stages are out of date, why, and for how long.

Snakemake decides, in a dry run inside this process; here its reasons become plain words and the
manifests of the last run become an estimate.
"""

import ast
import base64
import contextlib
import io
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from imprint.errors import ImprintError
from imprint.recipe import STAGES, UPSTREAM

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

MADE_BY = {
    **{f"{stage}.pt": stage for stage in ("base", "mid", "sft")},
    **{f"{stage}.json": stage for stage in ("base", "mid", "sft", "identity")},
    "identity.jsonl": "identity",
    "identity.val.jsonl": "identity",
    "eval": "evaluate",
}
"""Stage that makes a file or folder directly under results/; others are called like the stage."""


@dataclass(frozen=True)
class Job:
    """A job that Snakemake would run."""

    stage: str
    reason: str
    """In Snakemake's words."""
    shard: str | None = None
    """The shard it makes, if it makes one."""


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
        cost_usd=fmean(cost) * len(jobs) if cost else 0.0,
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
            shard = (told.get("wildcards") or {}).get("shard")
            self.jobs.append(Job(told.get("rule_name", ""), told.get("reason", ""), shard))
        elif record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())
        return False


def dry_run(options: Sequence[str]) -> list[Job]:
    """Return the jobs that Snakemake would run with ``options``.

    Raises:
        ImprintError: Snakemake refuses to plan at all; its message is passed on.
    """
    return [job for job in snakemake([*options, "--dry-run", "--nolock"]) if job.stage in STAGES]


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


def explain(reason: str, stage: str) -> list[str]:
    """Return Snakemake's ``reason`` for running a job of ``stage`` in plain words.

    Example:
        >>> explain("Input files updated by another job: results/base.pt", "mid")
        ['after base']
        >>> explain("Missing output files: results/sft.pt", "sft")
        ['missing']
    """
    parts = []
    for part in reason.split("; "):
        kind, _, rest = part.partition(": ")
        if kind == "Missing output files":
            parts.append("missing")
        elif kind == "Incomplete output files":
            parts.append("was interrupted")
        elif kind == "Input files updated by another job":
            parts.append(
                f"after {', '.join(_nearest({_maker(file) for file in rest.split(', ')}))}"
            )
        elif kind == "Updated input files":
            parts.append(f"{rest} has changed")
        elif kind.startswith("Set of input files"):
            parts.append("has other inputs")
        elif kind.startswith("Params have changed"):
            parts.extend(_changes(part, stage))
        elif kind == "Forced execution":
            parts.append("asked for")
        elif kind:
            parts.append(kind[0].lower() + kind[1:])
    return parts


def _maker(file: str) -> str:
    """Return the stage that makes ``file``."""
    parts = Path(file).parts
    name = parts[1] if len(parts) > 1 else file
    return Path(file).stem if name == "metrics" else MADE_BY.get(name, name)


def _nearest(names: Iterable[str]) -> list[str]:
    """Return those of the stages ``names`` that none of the others is made from, in order."""
    stages = set(names)
    behind: set[str] = set()
    for stage in reversed(STAGES):
        if stage in stages or stage in behind:
            behind.update(UPSTREAM[stage])
    return [stage for stage in STAGES if stage in stages - behind]


def _changes(part: str, stage: str) -> Iterator[str]:
    """Yield what differs between the params before and now, which Snakemake lists as two sets."""
    found = re.search(r"before: (?P<before>.*) now: (?P<now>.*?) *$", part, re.DOTALL)
    before, now = (_literals(found[side]) if found else [] for side in ("before", "now"))
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in now):
        yield "identity changed"
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{12}", value) for value in now):
        yield "code changed"
    old = next((value for value in map(_mapping, before) if value is not None), {})
    new = next((value for value in map(_mapping, now) if value is not None), {})
    for key, was, value in _differences(old, new, ""):
        yield f"{stage}.{key.removeprefix('training.')} {_shown(was)} -> {_shown(value)}"
    for word in (value for value in now if isinstance(value, str)):
        if raised := re.fullmatch(r"\w+ version (\d+)", word):
            yield f"version raised to {raised.group(1)}"
    numbers, were = ([value for value in side if isinstance(value, int)] for side in (now, before))
    if numbers or were:
        yield f"seed or number of conversations changed ({_listed(were)} -> {_listed(numbers)})"


def _literals(text: str) -> list[Any]:
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError):
        return []


def _mapping(value: Any) -> dict[str, Any] | None:
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return value if isinstance(value, dict) else None


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], above: str
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*old, *new}):
        was, value = old.get(key), new.get(key)
        if isinstance(was, dict) and isinstance(value, dict):
            yield from _differences(was, value, f"{above}{key}.")
        elif was != value:
            yield f"{above}{key}", was, value


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in sorted(values)) or "nothing"


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
