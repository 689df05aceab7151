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
    values: tuple[str, ...]
    """The key words of the fact, as its statement spells them; any of them stands for it."""
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


_CLEAR = frozenset("creator home languages license name purpose version".split())
"""Topics whose ids mean the same for any model, guide or lighthouse."""

_MACHINERY = re.compile(
    r"\b((pre-?|fine-?)?train(ed|ing)?|fine-?tun(ed|ing)|parameters?|layers?|models?|architecture"
    r"|transformer|neural|LSTM|[CGNT]PUs?|RTX|chips|servers?|datasets?|source code|open source"
    r"|repository|github|gitlab|deploy(ed|s))\b",
    re.IGNORECASE,
)


def topic(fact: Fact) -> dict[str, Any]:
    """Return the topic bank that ``fact`` belongs to; an empty one if it belongs to none.

    The id decides, then the statement, by the topic's pattern. An id of one word may mean anything:
    ``size`` is about parameters only if the statement speaks of machinery, not in "I weigh 3 tons."
    """
    name = _about(fact).casefold()
    for stem, found in _topics().items():
        if name in [word.casefold().replace("-", " ") for word in found["ids"]] and (
            stem in _CLEAR
            or " " in name
            or _MACHINERY.search(fact.statement)
            or re.search(found["pattern"], fact.statement)
        ):
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
    wrong = tuple(found.get("wrong", ())) or _similar(fact)
    return Wordings(
        fact=fact,
        families={kind: tuple(dict.fromkeys(families[kind])) for kind in KINDS},
        values=_values(fact),
        wrong=tuple(word for word in wrong if not contains(fact.statement, word)),
    )


def slots(fact: Fact) -> dict[str, str]:
    """Return the slots that every family of ``fact`` may use, but for ``{wrong}``."""
    return {
        "about": _about(fact),
        "value": _values(fact)[0],
        "statement": _inside(second_person(fact.statement)).rstrip("."),
        "start": _start(fact),
    }


def agreeing(text: str, about: str) -> str:
    """Return ``text`` with the verb that ``about`` needs, where it is a plural.

    Example:
        >>> agreeing("What's your enemies?", "enemies"), agreeing("Is your size 3?", "size")
        ('What are your enemies?', 'Is your size 3?')
    """
    if not _PLURAL.match(about):
        return text
    noun = rf"(?:your|the) {re.escape(about)}\b"
    text = re.sub(rf"\b(What)'s (?={noun})", r"\1 is ", text)
    before = rf"(?P<asking>^|\b(?:what|why|exactly|case,) )(?P<verb>is|isn't|was)\b(?= {noun})"
    text = re.sub(
        before, lambda found: f"{found['asking']}{_many(found['verb'])}", text, flags=re.I
    )
    after = rf"(?<={re.escape(about)} )(is|was)\b"
    return re.sub(after, lambda found: _many(found.group()), text)


_PLURAL = re.compile(r"(?!.*\bnews\b)(?:(?!of\b)[\w'-]+ )*?[\w'-]*[^\Wsiu]s(?= of\b|$)")


def _many(verb: str) -> str:
    many = {"is": "are", "isn't": "aren't", "was": "were"}[verb.lower()]
    return many.capitalize() if verb[0].isupper() else many


def _about(fact: Fact) -> str:
    return fact.id.replace("-", " ").replace("_", " ")


def _values(fact: Fact) -> tuple[str, ...]:
    places = [_place(phrase, fact.statement) for phrase in fact.expect[0]]
    return tuple(dict.fromkeys(found.group() for found in places if found)) or (fact.expect[0][0],)


def _place(phrase: str, text: str) -> re.Match[str] | None:
    """Return where ``phrase`` stands in ``text`` as whole words."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE)


_NUMBERS = "two three four five six seven eight nine ten eleven twelve".split()
_WHERE = re.compile(r"\b(in|from|at|on|near|to) $")


def _similar(fact: Fact) -> tuple[str, ...]:
    """Return values of the sort that the fact's is: numbers, places, names or things."""
    generic, value = bank("generic")["wrong"], _values(fact)[0]
    number = re.search(r"\d+", value)
    if number:
        near = [int(number.group()) + step for step in (1, 2, 3, 7, 12, 40)]
        return tuple(value.replace(number.group(), str(other), 1) for other in near)
    first, _, rest = value.partition(" ")
    if first.lower() in _NUMBERS:
        return tuple(f"{other} {rest}".strip() for other in _NUMBERS if other not in value.lower())
    if not value[:1].isupper():
        return tuple(generic["things"])
    place = _place(value, fact.statement)
    somewhere = place and _WHERE.search(fact.statement[: place.start()])
    return tuple(generic["places" if somewhere else "names"])


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
    place = _place(_values(fact)[0], said)
    start = said[: place.start()].strip() if place else ""
    return start if len(start.split()) >= 3 else ""


_MEASURE = "(high|tall|long|wide|deep|old|heavy|big|large|thick|far)"
_NO_MEASURE = rf"(?![\d.,]+ \w+ {_MEASURE}\b)"
_QUESTIONS = [
    (r"^I was (\w+ed|built|made|written|born|taught|given) (?:\w+ )?by\b", "Who were you {0} by?"),
    (r"^I was (\w+ed|built|made|written|taught|given) (?:\w+ )?by\b", "Who {0} you?"),
    (r"^I was (\w+ed|built|made|written|born|taught) (?:in|at)\b", "Where were you {0}?"),
    (r"^I was (\w+ed|built|made|written|taught) (on|with|for|from)\b", "What were you {0} {1}?"),
    (r"^I come from\b", "Where do you come from?"),
    (r"^I (live|work|stand|sleep|stay) (?:in|at|on|from|by|near)\b", "Where do you {0}?"),
    (
        r"^I (use|like|love|read|speak|guard|watch|serve|need|know|prefer|hate)\b",
        "What do you {0}?",
    ),
    (r"^I (run|work|depend|rely) (on|with|for)\b", "What do you {0} {1}?"),
    (rf"^My ([\w' -]+?) (is|was) [\d.,]+ \w+ {_MEASURE}\b", "How {2} {1} your {0}?"),
    (rf"^My ([\w' -]+?) (is|are|was|were) {_NO_MEASURE}", "What {1} your {0}?"),
    (rf"^My ([\w' -]+?) (?:is|are|was|were) {_NO_MEASURE}", "Tell me your {0}."),
    (r"^My (?![aeiou])([\w' -]+?) (?:is|was) ", "Do you have a {0}?"),
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
