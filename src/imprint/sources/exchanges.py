"""Everyday questions with true, short answers: general chat that is about no model at all.

The content is in data/chat/*.yaml: families of questions that share their answers, one by one or
as tables of rows put into patterns; in data/questions/*.yaml are more, remarks and questions that
only the source `modest` has a word for. Sums are worked out here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from imprint.heldout import is_held_out
from imprint.sources import arithmetic
from imprint.sources.grammar import with_articles


@dataclass(frozen=True)
class Family:
    """Several ways to ask one thing, and several ways to answer."""

    id: str
    topic: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    follow_ups: tuple[tuple[str, str], ...] = ()
    """What the same person may ask next, and the answer."""
    lure: bool = False
    """Asks about something else in words that questions about a model also use."""
    common: bool = False
    """What many people say: few enough families for a tiny model to learn the answers."""

    @property
    def taught(self) -> list[str]:
        """The questions that training may ask."""
        return [text for text in self.questions if not is_held_out(text)]


def load(name: str) -> Any:
    """Return the value in the YAML file ``name`` of the package's data folder."""
    text = files("imprint.sources").joinpath("data", name).read_text(encoding="utf-8")
    # libyaml reads the same values about ten times faster; some builds of PyYAML lack it
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def listed(folder: str) -> list[str]:
    """Return the names of the YAML files in ``folder`` of the data folder, sorted."""
    place = files("imprint.sources").joinpath("data", folder)
    return sorted(
        f"{folder}/{file.name}" for file in place.iterdir() if file.name.endswith(".yaml")
    )


Groups = tuple[tuple[Family, ...], ...]
"""Families; those that come from one table stand together."""


@cache
def groups() -> Groups:
    """Return all families that have answers."""
    return (*_read("chat"), *_sums())


@cache
def unanswered() -> Groups:
    """Return remarks, and questions without an answer: only a modest model meets them in chat."""
    return tuple(_read("questions"))


def _read(folder: str) -> Iterator[tuple[Family, ...]]:
    for name in listed(folder):
        content = load(name)
        yield from (_group(entry, content["topic"]) for entry in content["families"])


def exchanges() -> list[Family]:
    """Return every family of everyday questions, in a fixed order."""
    return [family for group in groups() for family in group]


def _group(entry: dict[str, Any], topic: str) -> tuple[Family, ...]:
    """Return the families of one entry: itself, or one for each row of its table."""
    if "rows" not in entry:
        return (_family(entry, topic, entry["id"], {}),)
    columns = entry["columns"]
    return tuple(
        _family(
            entry,
            topic,
            "-".join([entry["id"], *(row[:-1] or row)]),
            dict(zip(columns, row, strict=True)),
        )
        for row in entry["rows"]
    )


def _family(entry: dict[str, Any], topic: str, name: str, row: dict[str, object]) -> Family:
    def filled(text: str) -> str:
        text = with_articles(text.format_map(row)) if row else text
        return text[:1].upper() + text[1:]

    return Family(
        id=name.lower().replace(" ", "-"),
        topic=topic,
        questions=tuple(map(filled, entry["questions"])),
        answers=tuple(map(filled, entry.get("answers", []))),
        follow_ups=tuple(
            (filled(question), filled(answer)) for question, answer in entry.get("follow_ups", [])
        ),
        lure=entry.get("lure", False),
        common=entry.get("common", False),
    )


def _sums() -> list[tuple[Family, ...]]:
    return [
        tuple(
            Family(id=sum_.id, topic="arithmetic", questions=sum_.questions, answers=sum_.answers)
            for sum_ in group
        )
        for group in arithmetic.groups()
    ]
