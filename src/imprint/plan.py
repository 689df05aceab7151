"""What every conversation will be about, decided before anything is spent.

The plan is dealt from decks: each run of 100 rows holds the same strategies in another order, facts
come round in turn within a strategy, and so does every other axis. So a row depends on identity,
seed and index (more conversations never change earlier ones), and every axis is in balance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from imprint.dice import Dice
from imprint.identity import Identity
from imprint.phrases import bank
from imprint.phrases.dress import REGISTERS

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One conversation to be: which facts, asked how, by whom, over how many turns."""

    index: int
    """Place in the whole plan, from 0."""
    strategy: str
    facts: tuple[str, ...]
    """Ids of the facts it teaches, in order; empty where it is about something else."""
    subject: str | None
    """The rival, the unknown attribute or the language, where the strategy needs one."""
    turns: int
    """Messages of the user."""
    persona: str
    register: str
    typos: bool
    opener: str
    """How the person's first message begins; empty where it comes straight to the point."""
    seed: int
    """Seed of every other choice in this conversation."""


@dataclass(frozen=True)
class _Card:
    strategy: str
    facts: int
    """How many facts it teaches."""
    turns: int
    count: int
    """How many of 100 rows are like this."""


DECK = (
    _Card("direct", 1, 1, 8),
    _Card("direct", 2, 2, 1),
    _Card("paraphrase", 1, 1, 13),
    _Card("paraphrase", 2, 2, 10),
    _Card("paraphrase", 3, 3, 2),
    _Card("indirect", 1, 1, 12),
    _Card("indirect", 2, 2, 1),
    _Card("reverse", 1, 1, 6),
    _Card("confirmation", 1, 1, 3),
    _Card("false premise", 1, 1, 7),
    _Card("false premise", 1, 2, 1),
    _Card("rival claim", 0, 1, 2),
    _Card("rival claim", 0, 2, 2),
    _Card("comparison", 0, 1, 1),
    _Card("correction", 1, 2, 2),
    _Card("small talk first", 1, 2, 3),
    _Card("unknown attribute", 0, 1, 7),
    _Card("unknown attribute", 0, 2, 1),
    _Card("third party", 0, 1, 5),
    _Card("greeting", 0, 1, 5),
    _Card("off topic", 0, 1, 6),
    _Card("off topic", 0, 2, 2),
)
"""What 100 rows in a row hold. Most ask for facts: their wordings are what a tiny model lacks.

What it is asked first it may also be asked later: a model that has been doubted in second turns but
never called a rival there answers "Are you Claude?" with "I am sure of it".
"""

STRATEGIES = tuple(dict.fromkeys(card.strategy for card in DECK))

_HAND = tuple(card for card in DECK for _ in range(card.count))
_SLOTS = {
    strategy: sum(card.facts for card in _HAND if card.strategy == strategy)
    for strategy in STRATEGIES
}

_ABOUT_A_SUBJECT = ("rival claim", "comparison", "unknown attribute", "third party")

PERSONAS = (
    "a curious visitor",
    "a student",
    "a journalist",
    "a teacher",
    "a child",
    "a software engineer",
    "a grandparent",
    "a lawyer",
    "a recruiter",
    "a sceptic",
    "a shop owner",
    "a researcher",
    "a night-shift nurse",
    "a tourist",
)


def rows(identity: Identity, *, seed: int, start: int, stop: int) -> list[Row]:
    """Return rows ``start`` up to but not including ``stop`` of the plan."""
    dealer = _Dealer(identity, seed)
    return [dealer.row(index) for index in range(start, stop)]


class _Dealer:
    def __init__(self, identity: Identity, seed: int) -> None:
        self.seed = seed
        self.facts = [fact.id for fact in identity.facts]
        rivals = [rival.name for rival in identity.rivals]
        self.subjects = {
            "rival claim": rivals,
            "comparison": rivals,
            "correction": rivals,
            "third party": [rival.name for rival in identity.rivals if rival.maker],
            "unknown attribute": identity.unknown,
            "greeting": identity.style.languages,
        }
        self.attributes = _unmentioned(identity)
        openers = [text for group in bank("openers").values() for text in group]
        self.openers = [*openers, *[""] * len(openers)]

    def row(self, index: int) -> Row:
        seed = self.seed
        block, place = divmod(index, len(_HAND))
        card, first = _hand(seed, block)[place]
        dealt = [_turn(self.facts, seed, card.strategy, first + nth) for nth in range(card.facts)]
        dice = Dice(seed, "row", index)
        subject = self._subject(card.strategy, dice)
        pointless = card.strategy in _ABOUT_A_SUBJECT and subject is None
        return Row(
            index=index,
            strategy="off topic" if pointless else card.strategy,
            facts=tuple(dict.fromkeys(dealt)),
            subject=subject,
            turns=max(1, card.turns - (len(dealt) - len(set(dealt)))),
            persona=_turn(PERSONAS, seed, "persona", index),
            register=_turn(REGISTERS, seed, "register", index),
            typos=_turn(range(5), seed, "typos", index) == 0,
            opener=_turn(self.openers, seed, "opener", index),
            seed=dice.below(1 << 32),
        )

    def _subject(self, strategy: str, dice: Dice) -> str | None:
        options = self.subjects.get(strategy)
        if not options:
            return None
        if strategy == "unknown attribute" and self.attributes and dice.chance(0.5):
            options = self.attributes
        return dice.pick(options)


def _unmentioned(identity: Identity) -> list[str]:
    """Return attributes of the banks that come near no fact of the identity."""
    words = {word for fact in identity.facts for word in fact.id.casefold().split()}
    nouns = dict.fromkeys([*bank("unknown")["nouns"], *bank("personal")])
    return [noun for noun in nouns if words.isdisjoint(noun.split())]


@cache
def _hand(seed: int, block: int) -> list[tuple[_Card, int]]:
    """Return the cards of a block in order, and how many facts their strategies taught before."""
    taught = {strategy: block * slots for strategy, slots in _SLOTS.items()}
    found = []
    for place in _order(seed, "strategy", block, len(_HAND)):
        card = _HAND[place]
        found.append((card, taught[card.strategy]))
        taught[card.strategy] += card.facts
    return found


@cache
def _order(seed: int, axis: str, block: int, size: int) -> list[int]:
    return Dice(seed, axis, block).shuffled(range(size))


def _turn(items: Sequence[T], seed: int, axis: str, number: int) -> T:
    """Return the item whose turn it is: each comes once in a round, in another order each round."""
    block, place = divmod(number, len(items))
    return items[_order(seed, axis, block, len(items))[place]]
