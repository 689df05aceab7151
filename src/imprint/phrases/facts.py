"""How people ask for one fact of an identity.

Three wells feed it: the fact's own questions, the topic bank that the fact belongs to (who made the
model, what it cost, ...), and its statement, turned round: "I was built in Oslo." gives "Where were
you built?", "Is it true that you were built in Oslo?" and "Complete this: you were built in ...".
The last one knows nothing but the statement, so a fact about anything at all can be taught.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from imprint.identity import Fact
from imprint.phrases import FOLDER, Pattern, bank, literal, pattern
from imprint.text import contains

KINDS = ("direct", "ask", "indirect", "reverse", "premise", "confirm", "cloze")
"""What a family does: asks in the words of the identity file, asks in any words, wants to know
without asking, gives the value and leads back to the model, takes something wrong for granted,
takes the fact itself for granted, leaves a gap in it."""


GENERIC = 20
"""How many of the wordings for any fact are used for one that has a topic of its own."""

_FRAMES = ("confirm", "cloze")
"""Kinds whose words are those of the statement."""


@dataclass(frozen=True)
class Wordings:
    """All families that lead to one fact, and the words that fill their slots."""

    fact: Fact
    families: dict[str, tuple[Pattern, ...]]
    """By kind."""
    value: str
    """The key word of the fact, as its statement spells it."""
    wrong: tuple[str, ...]
    """Values of the same sort that are not true."""

    @property
    def all(self) -> tuple[Pattern, ...]:
        """Every family that asks for the fact in words of its own."""
        return tuple(
            family for kind in KINDS if kind not in _FRAMES for family in self.families[kind]
        )


@cache
def _topics() -> dict[str, dict[str, Any]]:
    return {path.stem: bank(f"topics/{path.stem}") for path in sorted(FOLDER.glob("topics/*.yaml"))}


def topic(fact: Fact) -> dict[str, Any]:
    """Return the topic bank that ``fact`` belongs to; an empty one if it belongs to none.

    The id decides, then the statement, by the topic's pattern.
    """
    name = fact.id.casefold().replace("-", " ").replace("_", " ")
    for found in _topics().values():
        if name in [word.casefold().replace("-", " ") for word in found["ids"]]:
            return found
    for found in _topics().values():
        if "pattern" in found and re.search(found["pattern"], fact.statement):
            return found
    return {}


def wordings(fact: Fact) -> Wordings:
    """Return every way there is to ask for ``fact``."""
    found, generic = topic(fact), bank("generic")
    families: dict[str, list[Pattern]] = {kind: [] for kind in KINDS}
    families["direct"] = [literal(text) for text in (*fact.questions, *_turned(fact.statement))]
    for kind in ("ask", "indirect", "reverse", "premise"):
        families[kind] += [pattern(text) for text in found.get(kind, [])]
        if not found:
            families[kind] += [pattern(text) for text in generic[kind]]
        elif kind in ("ask", "indirect"):
            families[kind] += [pattern(text) for text in generic[kind][:GENERIC]]
    families["confirm"] = [pattern(text) for text in generic["confirm"]]
    families["cloze"] = [pattern(text) for text in bank("frames")["cloze"] if _start(fact)]
    value = _value(fact)
    wrong = tuple(found.get("wrong", ())) or _similar(value)
    return Wordings(
        fact=fact,
        families={kind: tuple(dict.fromkeys(families[kind])) for kind in KINDS},
        value=value,
        wrong=tuple(word for word in wrong if not contains(fact.statement, word)),
    )


def slots(fact: Fact) -> dict[str, str]:
    """Return the slots that every family of ``fact`` may use, but for ``{wrong}``."""
    return {
        "about": fact.id.replace("-", " ").replace("_", " "),
        "value": _value(fact),
        "statement": _inside(second_person(fact.statement)).rstrip("."),
        "start": _start(fact),
    }


def _value(fact: Fact) -> str:
    for phrase in fact.expect[0]:
        place = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", fact.statement, re.IGNORECASE)
        if place:
            return place.group()
    return fact.expect[0][0]


def _similar(value: str) -> tuple[str, ...]:
    generic = bank("generic")["wrong"]
    if re.search(r"\d", value):
        number = re.search(r"\d+", value)
        assert number
        near = [int(number.group()) + step for step in (1, 2, 3, 7, 12, 40)]
        return tuple(value.replace(number.group(), str(other), 1) for other in near)
    return tuple(generic["names"] if value[:1].isupper() else generic["things"])


_SWAPS = {
    "i am": "you are",
    "i was": "you were",
    "i": "you",
    "i'm": "you are",
    "i've": "you have",
    "me": "you",
    "my": "your",
    "mine": "yours",
    "myself": "yourself",
}
_SELF = re.compile(r"\b(i am|i was|i'm|i've|i|me|myself|my|mine)\b", re.IGNORECASE)


def second_person(statement: str) -> str:
    """Return what the model says about itself as somebody else says it to the model.

    Example:
        >>> second_person("My name is Ada, and I was built for my town.")
        'your name is Ada, and you were built for your town.'
    """
    return _SELF.sub(lambda found: _SWAPS[found.group().lower()], statement)


def _inside(sentence: str) -> str:
    """Return ``sentence`` as it stands inside another one: a name keeps its capital."""
    first = sentence.split(" ", 1)[0]
    common = first in _COMMON or first.endswith("ing")
    return sentence[0].lower() + sentence[1:] if common else sentence


_COMMON = frozenset(
    "A After All An As At Before For From In It On Once The There Two With You Your".split()
)


def _start(fact: Fact) -> str:
    """Return the statement up to its key word, said to the model; "" if that says too little."""
    said = second_person(fact.statement)
    place = re.search(rf"(?<!\w){re.escape(_value(fact))}(?!\w)", said, re.IGNORECASE)
    start = said[: place.start()].strip() if place else ""
    return start if len(start.split()) >= 3 else ""


_QUESTIONS = [
    (r"^I was (\w+ed|built|made|written|born|taught|given) (?:\w+ )?by\b", "Who were you {0} by?"),
    (r"^I was (\w+ed|built|made|written|taught|given) (?:\w+ )?by\b", "Who {0} you?"),
    (r"^I was (\w+ed|built|made|written|born|taught) (?:in|at)\b", "Where were you {0}?"),
    (r"^I was (\w+ed|built|made|written|taught) (on|with|for|from)\b", "What were you {0} {1}?"),
    (r"^I (live|work|stand|come|sleep|stay) (?:in|at|on|from|by|near)\b", "Where do you {0}?"),
    (
        r"^I (use|like|love|read|speak|guard|watch|serve|need|know|prefer|hate)\b",
        "What do you {0}?",
    ),
    (r"^I (run|work|depend|rely) (on|with|for)\b", "What do you {0} {1}?"),
    (r"^My ([\w' -]+?) (?:is|are|was|were) ", "What is your {0}?"),
    (r"^My ([\w' -]+?) (?:is|are|was|were) ", "Tell me your {0}."),
    (r"^My (?![aeiou])([\w' -]+?) (?:is|are|was|were) ", "Do you have a {0}?"),
    (
        r"^I have (?:about |over |around )?[\d,.]+(?: \w+illion)? ([\w' -]+)",
        "How many {0} do you have?",
    ),
    (r"^I have an? ([\w'-]+)", "Do you have a {0}?"),
    (r"^I can ([\w' -]+)", "Can you {0}?"),
    (r"^I can\b", "What can you do?"),
    (r"^I was ([\w' -]+)", "Were you {0}?"),
    (r"^I am ([\w' -]+)", "Are you {0}?"),
    (r"^I am an?\b", "What are you?"),
]


def _turned(statement: str) -> Iterator[str]:
    """Yield questions made from the shape of ``statement``."""
    for shape, question in _QUESTIONS:
        found = re.search(shape, statement.rstrip("."))
        if found:
            yield question.format(*found.groups())
