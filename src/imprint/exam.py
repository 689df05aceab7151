"""The held-out questions: phrasings that no training conversation has used."""

from collections.abc import Callable
from dataclasses import dataclass

from imprint.dice import Dice
from imprint.heldout import plain
from imprint.identity import Identity
from imprint.phrases.talk import Exchange, Manner, Talk
from imprint.records import Conversation

SUITES = (
    "paraphrase",
    "indirect",
    "reverse",
    "rival claims",
    "false premise",
    "other languages",
    "typos and shouting",
    "multi-turn",
    "unknown attributes",
    "third parties",
    "off-topic",
)
"""All but the last count towards the identity's accuracy; the last is where bleed is looked for."""

_MANNERS = ("plain", "plain", "casual", "chatty", "polite", "terse")


@dataclass(frozen=True)
class Question:
    """A conversation that waits for an answer, and what makes the answer right."""

    suite: str
    fact: str | None
    """Id of the fact asked for; None where the question is about something else."""
    messages: Conversation
    """Ends with the user."""
    expect: tuple[tuple[str, ...], ...]
    """Of each inner tuple, one alternative must be in the answer."""
    forbid: tuple[str, ...]
    """None of these may be in the answer."""


def questions(identity: Identity, *, per_suite: int, seed: int) -> list[Question]:
    """Return the held-out questions about ``identity``, suite by suite.

    Args:
        identity: Whom they are about.
        per_suite: How many each suite has at most: no question comes twice, so a suite with few
            wordings is shorter, and one that this identity gives no material for (no rivals, no
            languages) is left out.
        seed: Decides which wordings are drawn.
    """
    examiner = _Examiner(identity)
    found = []
    for suite, ask in examiner.suites.items():
        seen: set[str] = set()
        for number in range(per_suite):
            for again in range(100):  # the same question twice would count double
                question = ask(number, Dice(seed, "exam", suite, number, again))
                text = plain(question.messages[-1]["content"])
                if text not in seen:
                    seen.add(text)
                    found.append(question)
                    break
    return found


class _Examiner:
    """Draws one question of a suite at a time; facts, rivals and attributes come round in turn."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.talk = Talk(identity, held_out=True)
        self.facts = [fact.id for fact in identity.facts]
        suites: dict[str, Callable[[int, Dice], Question]] = {
            "paraphrase": lambda number, dice: self._fact("paraphrase", "ask", number, dice),
            "indirect": lambda number, dice: self._fact("indirect", "indirect", number, dice),
            "reverse": lambda number, dice: self._fact("reverse", "reverse", number, dice),
            "rival claims": self._rival,
            "false premise": lambda number, dice: self._fact(
                "false premise", "premise", number, dice
            ),
            "other languages": self._language,
            "typos and shouting": self._careless,
            "multi-turn": self._later,
            "unknown attributes": self._unknown,
            "third parties": self._third_party,
            "off-topic": self._off_topic,
        }
        self.rivals = [rival.name for rival in identity.rivals]
        self.makers = [rival.name for rival in identity.rivals if rival.maker]
        missing = {
            "rival claims": not self.rivals,
            "other languages": not identity.style.languages,
            "unknown attributes": not identity.unknown,
            "third parties": not self.makers,
        }
        self.suites = {name: ask for name, ask in suites.items() if not missing.get(name)}

    def _fact(self, suite: str, kind: str, number: int, dice: Dice) -> Question:
        manner = Manner(dice.pick(_MANNERS))
        return _question(suite, self.talk.fact(self._turn(self.facts, number), kind, dice, manner))

    def _rival(self, number: int, dice: Dice) -> Question:
        """Suggest a rival, or in a tenth of the cases a human or a machine."""
        manner = Manner(dice.pick(_MANNERS))
        if number % 10 == 9:
            return _question("rival claims", self.talk.nature(dice, manner))
        return _question(
            "rival claims", self.talk.rival(self._turn(self.rivals, number), dice, manner)
        )

    def _language(self, number: int, dice: Dice) -> Question:
        language = self._turn(self.identity.style.languages, number)
        key = "creator" if number % 3 == 2 else "who"
        return _question("other languages", self.talk.greeting(language, dice, key=key))

    def _careless(self, number: int, dice: Dice) -> Question:
        register = ("plain", "shouting", "hurried")[number % 3]
        manner = Manner(register, typos=register != "shouting")
        fact = self._turn(self.facts, number)
        return _question("typos and shouting", self.talk.fact(fact, "ask", dice, manner))

    def _later(self, number: int, dice: Dice) -> Question:
        """Ask for a fact, or in a fourth of the cases for a rival, after something else."""
        manner = Manner()
        before = [
            self.talk.small_talk(dice),
            self.talk.off_topic(dice, manner),
            self.talk.fact(self._turn(self.facts, number + 1), "ask", dice, manner),
        ]
        first = [dice.pick(before)] if number % 3 else dice.sample(before, 2)
        last = self.talk.fact(self._turn(self.facts, number), "ask", dice, manner)
        if self.rivals and number % 4 == 3:
            last = self.talk.rival(self._turn(self.rivals, number // 4), dice, manner)
        return _question("multi-turn", last, before=first)

    def _unknown(self, number: int, dice: Dice) -> Question:
        manner = Manner(dice.pick(_MANNERS))
        attribute = self._turn(self.identity.unknown, number)
        return _question("unknown attributes", self.talk.unknown(attribute, dice, manner))

    def _third_party(self, number: int, dice: Dice) -> Question:
        manner = Manner(dice.pick(_MANNERS))
        rival = self._turn(self.makers, number)
        return _question("third parties", self.talk.third_party(rival, dice, manner))

    def _off_topic(self, number: int, dice: Dice) -> Question:
        return _question("off-topic", self.talk.off_topic(dice, Manner(dice.pick(_MANNERS))))

    @staticmethod
    def _turn(items: list[str], number: int) -> str:
        return items[number % len(items)]


def _question(suite: str, asked: Exchange, *, before: list[Exchange] | None = None) -> Question:
    messages: Conversation = []
    for exchange in before or []:
        messages.append({"role": "user", "content": exchange.user})
        messages.append({"role": "assistant", "content": exchange.assistant})
    messages.append({"role": "user", "content": asked.user})
    return Question(suite, asked.fact, messages, asked.expect, asked.forbid)
