"""Merge the shards into the identity dataset: valid, distinct, and apart from the held-out test."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from imprint import artifacts, decontamination, dedup, door, exam, records
from imprint.errors import ArtifactError, RecordError
from imprint.generation.harvest import EXAMPLES
from imprint.plan import Row
from imprint.records import Conversation
from imprint.stages import plan as planning
from imprint.stages import shards as making
from imprint.text import normalised

VERSION = 2

QUOTA = 50
"""Conversations that each fact should have in a plan of a thousand or more."""

logger = logging.getLogger("imprint")


@dataclass(frozen=True)
class Kept:
    """A conversation of a shard, and the row of the plan that it answers."""

    row: Row
    messages: Conversation


class Funnel:
    """Counts what becomes of the planned conversations; every one is counted once."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.missing = 0
        """Neither in a shard nor rejected: somebody deleted the line."""
        self.rejected: Counter[str] = Counter()
        self.dropped = Counter({"exact duplicates": 0, "near duplicates": 0, "contaminated": 0})

    def as_dict(self, *, kept: int, validation: int) -> dict[str, Any]:
        """Return all counts; those after ``generated`` add up to it."""
        return {
            "planned": self.planned,
            "missing": self.missing,
            "generated": self.planned - self.missing,
            "rejected": dict(sorted(self.rejected.items())),
            **self.dropped,
            "kept": kept,
            "validation": validation,
        }


def run(
    *,
    shards: list[Path],
    plans: list[Path],
    validation: float,
    near_duplicate: float,
    per_suite: int,
    seed: int,
    out: Path,
    validation_out: Path,
    manifest: Path,
) -> None:
    """Merge ``shards`` in the order of ``plans``, without what should not be trained on.

    Args:
        shards: The shards; the manifest of each lies beside it.
        plans: The plan of each shard, in the same order. The identity is taken from them.
        validation: Share of the conversations kept for validation.
        near_duplicate: Jaccard similarity of word pairs from which the later of two goes.
        per_suite: Questions in each suite of the held-out test.
        seed: Seed of the held-out test.
        out: The dataset: a JSON array of messages a line.
        validation_out: Its validation part, in the same format.
        manifest: Counts of what was kept and dropped, and coverage per fact.

    Raises:
        ArtifactError: A shard is damaged or does not belong to its plan; or too little is left.
        StorageError: An output may not be written.
    """
    watch = artifacts.Stopwatch()
    tasks = [planning.read(path) for path in plans]
    who = tasks[0].identity
    for path, task in zip(plans, tasks, strict=True):
        if task.identity != who:
            raise ArtifactError(
                f"{path}: made for another identity than {plans[0]}. Delete it and run again."
            )
    funnel = Funnel(sum(len(task.rows) for task in tasks))
    objection = door.keeper(who)
    found = []
    for path, task in zip(shards, tasks, strict=True):
        for kept in _admitted(path, task, funnel):
            if reason := objection(kept.messages, kept.row):
                funnel.rejected[reason] += 1
            else:
                found.append(kept)
    found = _distinct(found, near_duplicate, funnel)
    questions = exam.questions(who, per_suite=per_suite, seed=seed)
    found = _uncontaminated(found, [question.messages for question in questions], funnel)
    if len(found) < 2:
        counts = funnel.as_dict(kept=len(found), validation=0)
        raise ArtifactError(
            f"{out}: {len(found)} of {funnel.planned} conversations left, too few to train and "
            f"validate on ({json.dumps(counts)}). Set `conversations` higher, or see the logs of "
            "the shards for what was rejected."
        )
    aside = _aside(found, validation)
    train = [kept for place, kept in enumerate(found) if place not in aside]
    records.write_lines(out, (kept.messages for kept in train))
    records.write_lines(validation_out, (found[place].messages for place in sorted(aside)))
    coverage = Counter(name for kept in train for name in kept.row.facts)
    strategies = Counter(kept.row.strategy for kept in train)
    counts = funnel.as_dict(kept=len(train), validation=len(aside))
    artifacts.write_manifest(
        manifest,
        stage="identity",
        version=VERSION,
        outputs=[out, validation_out],
        inputs=[*plans, *shards],
        settings={
            "validation": validation,
            "near_duplicate": near_duplicate,
            "per_suite": per_suite,
        },
        seed=seed,
        watch=watch,
        funnel=counts,
        bill=making.bill(shards),
        coverage={fact.id: coverage[fact.id] for fact in who.facts},
        strategies=dict(sorted(strategies.items())),
    )
    _report(counts, [(fact.id, coverage[fact.id]) for fact in who.facts])


def _admitted(path: Path, task: planning.Slice, funnel: Funnel) -> Iterator[Kept]:
    """Yield the checked conversations of a shard, which stand in the order of its plan."""
    rows = {making.name(row.index): row for row in task.rows}
    rejections = artifacts.read_json(making.sidecar(path)).get("rejections", {})
    last = -1
    try:
        for where, value in records.lines(path):
            match value:
                case {"id": str(name), "messages": messages, "meta": {"plan": asked}}:
                    row = rows.pop(name, None)
                case _:
                    raise RecordError(f"{where}: should have an id, messages and meta")
            if row is None or asked != planning.as_dict(row):
                raise RecordError(f"{where}: conversation {name!r} is not what its plan asks for")
            if row.index < last:
                raise RecordError(f"{where}: conversation {name!r} is out of order")
            last = row.index
            yield Kept(row, records.check(messages, where))
    except RecordError as error:
        problem = str(error).removesuffix("Delete the line.").rstrip(" .")
        raise ArtifactError(
            f"{problem}. Mend the line, or delete {path} and run again: only it is made anew."
        ) from error
    if last < 0 < len(rows):
        raise ArtifactError(f"{path}: empty. Delete it and run again.")
    for name in rows:
        if name in rejections:
            funnel.rejected[rejections[name]] += 1
        else:
            funnel.missing += 1


def _distinct(found: list[Kept], threshold: float, funnel: Funnel) -> list[Kept]:
    """Return ``found`` without what says the same as an earlier one, or nearly so."""
    first: dict[str, Kept] = {}
    for kept in found:
        text = "\n".join(f"{turn['role']}: {normalised(turn['content'])}" for turn in kept.messages)
        first.setdefault(text, kept)
    funnel.dropped["exact duplicates"] = len(found) - len(first)
    twins = dedup.near_duplicates(list(first), threshold)
    left = [kept for kept, twin in zip(first.values(), twins, strict=True) if twin is None]
    funnel.dropped["near duplicates"] = len(first) - len(left)
    return left


def _uncontaminated(found: list[Kept], held_out: list[Conversation], funnel: Funnel) -> list[Kept]:
    """Return ``found`` without what gives away a question of the held-out test."""
    given_away = decontamination.detector(held_out)
    left = []
    for kept in found:
        words = given_away(kept.messages)
        if words is None:
            left.append(kept)
        elif funnel.dropped["contaminated"] < EXAMPLES:
            logger.info("contaminated, shares %r with the exam: %s", words, kept.messages)
        funnel.dropped["contaminated"] += words is not None
    return left


def _position(messages: Conversation) -> float:
    """Return a number from 0 to 1 that depends on the conversation alone."""
    text = artifacts.canonical(messages).encode()
    return int.from_bytes(blake2b(text, digest_size=7).digest(), "big") / (1 << 56)


def _aside(found: Sequence[Kept], share: float) -> set[int]:
    """Return the places of the conversations for validation.

    These are the ones with a position below ``share``, so that more conversations move hardly
    any across. A fact they miss adds its conversation of lowest position, if it has two.
    """
    positions = [_position(kept.messages) for kept in found]
    by_position = sorted(range(len(found)), key=lambda place: positions[place])
    aside = {place for place in by_position if positions[place] < share}
    teaching: dict[str, list[int]] = {}
    for place in by_position:
        for name in found[place].row.facts:
            teaching.setdefault(name, []).append(place)
    for places in teaching.values():
        if aside.isdisjoint(places):
            aside.add(places[0])
    for places in teaching.values():
        if aside.issuperset(places):
            aside.discard(places[-1])  # to learn a fact matters more than to validate it
    aside = aside or {by_position[0]}
    return aside if len(aside) < len(found) else aside - {by_position[-1]}


def _report(counts: dict[str, Any], coverage: list[tuple[str, int]]) -> None:
    """Log the funnel, and warn of each fact that too few conversations teach."""
    logger.info("%s", ", ".join(f"{name} {count}" for name, count in counts.items()))
    if counts["missing"]:
        logger.warning(
            "warning: the shards lack %d of the planned conversations", counts["missing"]
        )
    quota = max(1, QUOTA * min(counts["planned"], 1000) // 1000)
    for name, count in coverage:
        if count < quota:
            logger.warning(
                "warning: fact %r has only %d of %d conversations: set `conversations` higher, "
                "or give the fact more questions",
                *(name, count, quota),
            )
