"""Decide what every conversation of a shard will be about, and write it down.

A plan file holds all that its shard is made from, the identity included: whatever leaves its
bytes as they were leaves the shard as it was.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imprint import artifacts
from imprint import plan as planning
from imprint.errors import ArtifactError
from imprint.identity import Identity, load
from imprint.plan import Row

VERSION = 4


@dataclass(frozen=True)
class Slice:
    """What a plan file holds."""

    shard: str
    """Name of the shard: four digits or more."""
    seed: int
    identity: Identity
    rows: list[Row]


def slices(count: int, size: int) -> Iterator[tuple[str, int, int]]:
    """Yield name, first and past-the-last conversation of each shard of ``size`` conversations.

    Example:
        >>> list(slices(5, 2))
        [('0000', 0, 2), ('0001', 2, 4), ('0002', 4, 5)]
    """
    for number, start in enumerate(range(0, count, size)):
        yield f"{number:04d}", start, min(start + size, count)


def run(*, identity: Path, shard: str, start: int, stop: int, seed: int, out: Path) -> None:
    """Write the rows ``start`` to ``stop`` (exclusive) of the plan for an identity.

    Args:
        identity: The identity file.
        shard: Name of the shard.
        start: First conversation.
        stop: Past the last conversation.
        seed: Seed of the whole plan.
        out: The plan file: one JSON object, a row of the plan a line.

    Raises:
        IdentityError: The identity file is wrong.
        StorageError: ``out`` may not be written.
    """
    who = load(identity)
    rows = planning.rows(who, seed=seed, start=start, stop=stop)
    with artifacts.written(out) as file:
        file.write(f'{{"shard": {_line(shard)}, "seed": {seed},\n')
        file.write(f'"identity": {artifacts.canonical(who.model_dump())},\n"rows": [\n')
        file.write(",\n".join(_line(as_dict(row)) for row in rows))
        file.write("\n]}\n")


def read(path: Path) -> Slice:
    """Return what the plan file ``path`` holds.

    Raises:
        ArtifactError: The file is missing, damaged, or from another version of imprint.
    """
    data = artifacts.read_json(path)
    try:
        found = Slice(
            shard=data["shard"],
            seed=data["seed"],
            identity=Identity.model_validate(data["identity"]),
            rows=[Row(**{**row, "facts": tuple(row["facts"])}) for row in data["rows"]],
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(
            f"{path}: not a plan that this version of imprint reads. Delete it and run again."
        ) from error
    known = {fact.id for fact in found.identity.facts}
    for row in found.rows:
        if not known.issuperset(row.facts):
            raise ArtifactError(
                f"{path}: conversation {row.index} is about a fact that the identity lacks. "
                "Delete the file and run again."
            )
    return found


def as_dict(row: Row) -> dict[str, Any]:
    """Return ``row`` as the plain JSON types it is stored as."""
    return {**vars(row), "facts": list(row.facts)}


_line = json.JSONEncoder(ensure_ascii=False).encode
