"""Snakemake's reasons for running a job, in plain words."""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imprint.recipe import STAGES, UPSTREAM

MADE_BY = {
    **{f"{stage}.pt": stage for stage in ("base", "mid", "sft")},
    **{f"{stage}.json": stage for stage in ("base", "mid", "sft", "identity")},
    "identity.jsonl": "identity",
    "identity.val.jsonl": "identity",
    "eval": "evaluate",
}
"""Stage that makes a file or folder directly under results/; others are called like the stage."""


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
    if any(isinstance(value, int) for value in [*before, *now]):
        yield "seed or number of conversations changed"  # no figures: one line for all shards


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
