"""What a run would do before it does it: which stages are out of date, why, and for how long.

Snakemake decides, in a dry run; here its reasons become plain words and the manifests of the last
run become an estimate.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from imprint.reasons import explain
from imprint.recipe import STAGES
from imprint.workflow import Job

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
        jobs: What Snakemake would run.
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
