"""The bank of wordings: how people ask a model about itself, and how it answers.

The wordings are YAML files beside this module, without the name of any model. A pattern holds
choices in brackets, ``Who (made|built) you?``, and slots in braces, ``Are you {rival}?``. A pattern
is a *family*: all that it expands to is trained on, or all of it is kept for the exam
(`imprint.heldout`).
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from imprint.dice import Dice
from imprint.heldout import is_held_out, plain, position

FOLDER = Path(__file__).parent

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C: 0.1 s for all banks; Python: 1.5 s
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")
_WORD = re.compile(r"[a-z0-9]{4,}")

MET = 4
"""In how many families a word has to stand before the exam may use it."""


@cache
def bank(name: str) -> dict[str, Any]:
    """Return the content of the YAML file ``name`` of this folder, such as ``frames``."""
    found = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=_LOADER)
    assert isinstance(found, dict)
    return found


@dataclass(frozen=True)
class Pattern:
    """A family of wordings, taken apart into fixed texts and choices."""

    text: str
    parts: tuple[tuple[str, ...], ...] = field(hash=False)  # hardly ever of the same text

    def all(self) -> Iterator[str]:
        """Yield every wording, with its slots open."""
        return ("".join(chosen) for chosen in itertools.product(*self.parts))

    def say(self, dice: Dice, slots: Mapping[str, str] | None = None) -> str:
        """Return one wording; what fills a slot is taken as it is."""
        text = "".join([part[0] if len(part) == 1 else dice.pick(part) for part in self.parts])
        if slots:
            text = _SLOT.sub(lambda slot: slots.get(slot.group(1), slot.group()), text)
        return " ".join(text.split())


@cache
def pattern(text: str) -> Pattern:
    """Return ``text`` as a pattern.

    Example:
        >>> pattern("Who (made|built) you?").parts
        (('Who ',), ('made', 'built'), (' you?',))
    """
    pieces = _CHOICE.split(text)
    parts = [
        tuple(piece.split("|")) if number % 2 else (piece,) for number, piece in enumerate(pieces)
    ]
    return Pattern(text, tuple(part for part in parts if part != ("",)))


def literal(text: str) -> Pattern:
    """Return a pattern that says exactly ``text``, brackets and braces included."""
    return Pattern(text, ((text,),))


@cache
def patterns(name: str, key: str, *, held_out: bool) -> tuple[Pattern, ...]:
    """Return one side of a list of questions in a bank: the exam's families, or all others."""
    families = tuple(pattern(text) for text in bank(name)[key])
    return split(families, held_out=held_out, among=families)


def split(
    families: Sequence[Pattern], *, held_out: bool, among: Sequence[Pattern]
) -> tuple[Pattern, ...]:
    """Return the families of the exam, or all others.

    The exam asks in new sentences, not in new words: a model that has only ever read this corpus
    cannot know what "invoice" means from a question it never met. So a family may be held out if
    all but one in five of its words stand in `MET` families of ``among``. Where that leaves the
    exam none of four or more, it gets the one nearest to it.

    Args:
        families: What to split.
        held_out: Which side to return.
        among: All families about the same thing, in whatever way they ask.
    """
    exam = {family for family in common(families, among=among) if is_held_out(family.text)}
    if not exam and len(families) >= 4:
        exam = {min(families, key=lambda family: position(family.text))}
    return tuple(family for family in families if (family in exam) == held_out)


def common(families: Sequence[Pattern], *, among: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """Return the families in common words: those that `split` may hold out."""
    met = _met(tuple(among))

    def strange(family: Pattern) -> int:
        return len(words(family.text) - met)

    return tuple(family for family in families if 5 * strange(family) <= len(words(family.text)))


@cache
def _met(families: tuple[Pattern, ...]) -> frozenset[str]:
    """Return the words that stand in `MET` of ``families`` or more."""
    counts = Counter(word for family in set(families) for word in words(family.text))
    return frozenset(word for word, count in counts.items() if count >= MET)


@cache
def words(text: str) -> frozenset[str]:
    """Return the longer words of a pattern, the alternatives included and the slots left out."""
    return frozenset(_WORD.findall(plain(_SLOT.sub(" ", text.replace("|", " ")))))
