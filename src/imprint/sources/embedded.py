"""Text and chat that ship with the package: no download, the same bytes on every machine."""

from collections.abc import Iterator
from functools import cache
from typing import ClassVar

from imprint.dice import Dice
from imprint.heldout import is_held_out
from imprint.phrases import bank
from imprint.phrases.dress import REGISTERS, dressed
from imprint.records import Conversation
from imprint.sources import Source, library
from imprint.sources.exchanges import Family, Groups, groups, unanswered

_CARELESS = 0.15
_FOLLOWED = 0.5
_TABLE_WEIGHT = 10
"""A table of hundreds of rows is drawn only ten times as often as one family."""
_COMMON_WEIGHT = 6
"""Greetings and the like come as often as six other families: everybody begins with them."""
_LURE_WEIGHT = 8
"""What is asked in the words of an identity has to be told from it."""


class Embedded(Source):
    """Plain English and everyday chat, put together from material written for this project."""

    name: ClassVar[str] = "embedded"
    version: ClassVar[int] = 6
    turns: ClassVar[tuple[int, ...]] = (1, 1, 1, 2, 2, 3)
    """How many exchanges a conversation may have; drawn evenly."""

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

    def conversations(self, *, count: int, seed: int) -> Iterator[Conversation]:
        """Yield ``count`` conversations of some everyday exchanges, none that an exam may ask."""
        pool, follow_ups = _pool(self.groups())
        for index in range(count):
            dice = Dice(seed, "conversation", index)
            turns: Conversation = []
            for _ in range(dice.pick(self.turns)):
                family, questions = dice.pick(dice.pick(pool))
                answers = self.answers(family)
                turns += _exchange(dice.pick(questions), dice.pick(answers), dice)
                after = follow_ups.get(family.id) if answers is family.answers else None
                if after and dice.chance(_FOLLOWED):
                    question, answer = dice.pick(after)
                    turns.append({"role": "user", "content": question})
                    turns.append({"role": "assistant", "content": answer})
            yield turns

    def groups(self) -> Groups:
        """Return what people ask."""
        return groups()

    def answers(self, family: Family) -> tuple[str, ...]:
        """Return what may be answered to a question of ``family``."""
        return family.answers


class Modest(Embedded):
    """Chat of a model too small to know much: beyond the common questions it says so."""

    name: ClassVar[str] = "modest"
    turns: ClassVar[tuple[int, ...]] = (1, 1, 1, 1, 1, 2)

    def groups(self) -> Groups:
        """Return what people ask, also what nobody wrote an answer to."""
        return groups() + unanswered()

    def answers(self, family: Family) -> tuple[str, ...]:
        """Return the answers to a common question, and to any other that one does not know."""
        return family.answers if family.common else tuple(bank("answers")["unsure"])


Pool = list[list[tuple[Family, list[str]]]]


@cache
def _pool(asked: Groups) -> tuple[Pool, dict[str, list[tuple[str, str]]]]:
    """Return families with the questions for training, tables weighted; and their follow-ups."""
    pool: Pool = []
    follow_ups = {}
    for group in asked:
        usable = []
        for family in group:
            if questions := family.taught:
                usable.append((family, questions))
            after = [pair for pair in family.follow_ups if not is_held_out(pair[0])]
            if after:
                follow_ups[family.id] = after
        if usable:
            first = group[0]
            often = _COMMON_WEIGHT if first.common else _LURE_WEIGHT if first.lure else 1
            pool += [usable] * min(max(often, len(group)), _TABLE_WEIGHT)
    return pool, follow_ups


def _exchange(question: str, answer: str, dice: Dice) -> Conversation:
    asked = dressed(
        question,
        dice,
        register=dice.pick(REGISTERS),
        typos=dice.chance(_CARELESS),
        about_model=False,
    )
    if is_held_out(asked):
        asked = question  # what stands around it made it one that the exam may ask
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
