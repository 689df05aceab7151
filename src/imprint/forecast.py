"""What a run would do before it does it: which stages are out of date, why, and for how long.

Snakemake decides, in a dry run; here its reasons become plain words and the manifests of the last
run become an estimate.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from imprint import recipe
from imprint.reasons import explain
from imprint.recipe import STAGES
from imprint.scale import Optimizer
from imprint.settings import Settings
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

DRIVERS = {
    "plan": ("conversations",),
    "shards": ("provider", "conversations"),
    "identity": ("conversations",),
    "corpus": ("text",),
    "tokenizer": ("text", "vocabulary"),
    "tokens": ("text", "vocabulary", "conversations", "mid chat", "sft chat"),
    "base": ("model", "base"),
    "mid": ("model", "conversations", "mid chat", "mid"),
    "sft": ("model", "conversations", "sft chat", "sft"),
    "evaluate": ("model", "test"),
    "report": (),
}
"""What decides how long a stage takes."""

TIMELESS = {*Optimizer.model_fields, "seed", "provider_version", "source_version", "versions"}
"""Settings in manifests that leave the time as it is."""


@dataclass(frozen=True)
class Line:
    """What would happen to a stage."""

    stage: str
    jobs: int
    """How many would run; 0 if the stage is fresh."""
    why: str
    """In plain words; empty if the stage is fresh."""
    seconds: float | None
    """Work of these jobs, judged by the last run; None if there was none that had as much to do."""
    cost_usd: float
    """Of these jobs; of a fresh stage, what it has cost."""
    machine: str = ""
    """What they would run on for money; empty for this machine."""
    most: bool = False
    """Whether time and cost are limits, because nobody knows better."""


def forecast(jobs: Sequence[Job], settings: Settings, *, root: Path = Path()) -> list[Line]:
    """Return what running ``jobs`` would mean, a line a stage.

    Args:
        jobs: What Snakemake would run.
        settings: Those of now. What took its time with others that count is no measure.
        root: The project's folder, the current one.
    """
    other = _differing(settings, root)
    return [
        _line(
            stage,
            [job for job in jobs if job.stage == stage],
            root,
            comparable=other.isdisjoint(DRIVERS[stage]),
        )
        for stage in STAGES
    ]


def _differing(settings: Settings, root: Path) -> set[str]:
    """Return which of the names in `DRIVERS` stand for something else now than in the last run."""
    shaping = {stage: recipe.settings(stage, settings) for stage in STAGES}
    shape = {
        "training": {"from": settings.base.start},
        "model": shaping["base"].get("model", {}),
    }
    chats = {stage: recipe.chats(stage, settings) for stage in ("mid", "sft")}
    planned = max(end for _, end in recipe.shards(settings).values())
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "provider": ("shards/0000.json", shaping["shards"]),
        "text": ("corpus/manifest.json", shaping["corpus"]),
        "vocabulary": ("tokenizer/manifest.json", shaping["tokenizer"]),
        "mid chat": ("tokens/mid.manifest.json", chats["mid"]),
        "sft chat": ("tokens/sft.manifest.json", chats["sft"]),
        "model": ("base.json", shape),
        "test": ("eval/sft.json", shaping["evaluate"]),
        **{stage: (f"{stage}.json", shaping[stage]) for stage in ("base", "mid", "sft")},
    }
    found = {
        name
        for name, (path, now) in wanted.items()
        if _differs(_read(root / "results" / path).get("settings", {}), now)
    }
    funnel = _read(root / "results" / "identity.json").get("funnel", {})
    if funnel.get("planned", planned) != planned:
        found.add("conversations")
    return found


def _differs(had: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether something that takes time is another; what only one of them holds is not."""
    for key in had.keys() & now.keys() - TIMELESS:
        was, wanted = had[key], now[key]
        if isinstance(was, dict) and isinstance(wanted, dict) and key != "chat":
            if _differs(was, wanted):
                return True
        elif was != wanted:
            return True
    return False


def _line(stage: str, jobs: list[Job], root: Path, *, comparable: bool) -> Line:
    parts = dict.fromkeys(part for job in jobs for part in explain(job.reason, stage))
    afters = (part.removeprefix("after ") for part in parts if part.startswith("after "))
    above = dict.fromkeys(name for part in afters for name in part.split(", "))
    reasons = [part for part in parts if not part.startswith("after ")]
    if above:
        reasons.append(f"after {', '.join(above)}")
    past, cost = _past_s(stage, root), _past_usd(stage, root)
    if jobs and not comparable:
        past, cost = [], []
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
        if found := _read(path):
            yield found


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``; empty if there is none: a run will say what is wrong."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recorded_s(root: Path, product: Path) -> float | None:
    """Return how long the job behind ``product`` took, as Snakemake has it; None if it has not."""
    name = base64.b64encode(str(product.relative_to(root)).encode()).decode()
    try:
        record = json.loads((root / ".snakemake" / "metadata" / name).read_text(encoding="utf-8"))
        return max(0.0, float(record["endtime"]) - float(record["starttime"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
