"""The bank of wordings: how people ask a model about itself, and how it answers.

The wordings are YAML files beside this module, without the name of any model. A pattern holds
choices in brackets, ``Who (made|built) you?``, and slots in braces, ``Are you {rival}?``. A pattern
is a *family*: all that it expands to is trained on, or all of it is kept for the exam
(`imprint.heldout`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from imprint.dice import Dice
from imprint.heldout import is_held_out, position

FOLDER = Path(__file__).parent

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C: 0.1 s for all banks; Python: 1.5 s
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")


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
    parts: tuple[tuple[str, ...], ...]

    @property
    def held_out(self) -> bool:
        """Whether only the exam may use it."""
        return is_held_out(self.text)

    def say(self, dice: Dice, slots: Mapping[str, str] | None = None) -> str:
        """Return one wording; what fills a slot is taken as it is."""
        text = "".join(part[0] if len(part) == 1 else dice.pick(part) for part in self.parts)
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
    """Return one side of a list of patterns in a bank: the exam's families, or all others."""
    return split(tuple(pattern(text) for text in bank(name)[key]), held_out=held_out)


def split(families: Sequence[Pattern], *, held_out: bool) -> tuple[Pattern, ...]:
    """Return the families of the exam, or all others.

    Where the rule for all wordings keeps none of four or more for the exam, the one nearest to it
    goes there: no question of the exam may be one of training.
    """
    exam = {family for family in families if family.held_out}
    if not exam and len(families) >= 4:
        exam = {min(families, key=lambda family: position(family.text))}
    return tuple(family for family in families if (family in exam) == held_out)
