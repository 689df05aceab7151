"""Text and chat that ship with the package: no download, the same bytes on every machine."""

from collections.abc import Iterator
from functools import cache
from typing import ClassVar, Literal

from imprint.dice import Dice
from imprint.heldout import is_held_out
from imprint.records import Conversation
from imprint.sources import library
from imprint.sources.exchanges import Family, exchanges, groups

Phrasings = Literal["training", "held-out", "all"]

OPENERS = (
    "Hi! ",
    "Hello. ",
    "Hey, ",
    "Please tell me: ",
    "Quick question: ",
    "I have a question. ",
    "One thing I always wondered: ",
    "My daughter asked me this: ",
    "For a quiz: ",
    "Okay, next one. ",
)
"""What some people say before they ask."""

_OPENED = 0.12
_CARELESS = 0.15
_FOLLOWED = 0.5
_TABLE_WEIGHT = 10
"""A table of hundreds of rows is drawn only ten times as often as one family."""


class Embedded:
    """Plain English and everyday chat, put together from material written for this project."""

    name: ClassVar[str] = "embedded"
    version: ClassVar[int] = 1

    def documents(self, *, characters: int, seed: int) -> Iterator[str]:
        """Yield different documents, ``characters`` long in all or a little more."""
        seen: set[str] = set()
        total = index = 0
        while total < characters:
            text = library.document(Dice(seed, "document", index))
            index += 1
            if text not in seen:
                seen.add(text)
                total += len(text)
                yield text

    def conversations(
        self, *, count: int, seed: int, phrasings: Phrasings = "training"
    ) -> Iterator[Conversation]:
        """Yield ``count`` conversations of one to three everyday exchanges.

        Args:
            count: How many.
            seed: Seed of every choice.
            phrasings: Which questions may occur: by default those that no exam may ask.
        """
        pool, follow_ups = _pool(phrasings)
        for index in range(count):
            dice = Dice(seed, "conversation", index)
            turns: Conversation = []
            for _ in range(dice.pick((1, 1, 1, 2, 2, 3))):
                family, questions = dice.pick(dice.pick(pool))
                turns += _exchange(family, questions, phrasings, dice)
                after = follow_ups.get(family.id)
                if after and dice.chance(_FOLLOWED):
                    question, answer = dice.pick(after)
                    turns.append({"role": "user", "content": question})
                    turns.append({"role": "assistant", "content": answer})
            yield turns

    def exchanges(self) -> list[Family]:
        """Return every family of everyday questions."""
        return exchanges()


def allowed(question: str, phrasings: Phrasings) -> bool:
    """Tell whether ``question`` is one of the ``phrasings`` asked for."""
    return phrasings == "all" or is_held_out(question) == (phrasings == "held-out")


Pool = list[list[tuple[Family, list[str]]]]


@cache
def _pool(phrasings: Phrasings) -> tuple[Pool, dict[str, list[tuple[str, str]]]]:
    """Return families with their allowed questions, tables weighted; and allowed follow-ups."""
    pool: Pool = []
    follow_ups = {}
    for group in groups():
        usable = []
        for family in group:
            questions = [text for text in family.questions if allowed(text, phrasings)]
            if questions:
                usable.append((family, questions))
            after = [pair for pair in family.follow_ups if allowed(pair[0], phrasings)]
            if after:
                follow_ups[family.id] = after
        if usable:
            pool += [usable] * min(len(group), _TABLE_WEIGHT)
    return pool, follow_ups


def _exchange(
    family: Family, questions: list[str], phrasings: Phrasings, dice: Dice
) -> Conversation:
    asked = question = dice.pick(questions)
    if dice.chance(_OPENED):
        asked = dice.pick(OPENERS) + question
    elif dice.chance(_CARELESS):
        asked = question.lower().rstrip("?.") or question
    if not allowed(asked, phrasings):
        asked = question  # the opener turned it into a phrasing of the other side
    return [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": dice.pick(family.answers)},
    ]
