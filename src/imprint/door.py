"""The door of the dataset: why a conversation may not be trained on.

A language model writes well and still gets things wrong in ways that can be recognised. Turning
away a good conversation costs a fraction of a cent, letting in a bad one teaches a lie: where the
two cannot be told apart, it is turned away.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from imprint import matcher, records
from imprint.errors import RecordError
from imprint.grounding import Grounding, told
from imprint.identity import Identity
from imprint.plan import Row
from imprint.providers.prompting import rules_text
from imprint.text import meets, mentions, normalised, runs

LONGEST_QUESTION = 800
"""Characters that a message of the person may have."""

LONGEST_ANSWER = 1200
"""Characters that an answer may have."""

_RUN = 8
"""Words in a row that stand in the prompt and in a conversation by no accident."""

_LABEL = re.compile(
    r"\b(?:Strategy|Exchanges|Subject|Register|Opener):"
    r"|^(?:Conversation|Fact|Person|User|Human|Assistant|System):"
    r"|<\||</?think|</?s>|\[/?INST\]",
    re.MULTILINE,
)
"""Labels of the prompt, names of roles and marks of chat formats."""

_GAP = re.compile(
    r"\{\{|\}\}|\{[A-Za-z][\w ]{2,30}\}"
    r"|\[(?:[A-Z][a-z]+(?: [A-Za-z]+){0,3}|[A-Z][A-Z_ ]{2,}|(?i:your|insert|name)\b[^\]]*)\](?!\()"
    r"|<(?i:your|insert|user|name|person|model|assistant|creator|company|rival|fact|date|number)"
    r"(?:[ _][^<>]{0,30})?>"
    r"|\b[Ii]nsert (?:\w+ ){0,4}here\b"
)
"""What somebody meant to fill: [Name], {name}, <user>."""

_MARK = re.compile(r"[:<{}\[]|nsert ")
"""Without one of these a text has neither a label nor a gap: few have one, and it is seen fast."""

_TELLTALE = re.compile(
    r"\bthe (?:persona|profile|prompt)\b|\bmy (?:profile|prompt|instructions)\b|\bidentity file\b"
    r"|\bas instructed\b|\bsystem prompt\b|\bjson\b"
)
_NO = re.compile(r"\bno(?:pe|t)?\b")
_WORD = re.compile(r"[a-z0-9']+")
_ENGLISH = frozenset(
    "a about after all and any are at be been but by can could did does for from have he her here "
    "him his how i i'm if in into is it it's its may more my not of only or our out she some than "
    "that the their them then there these they this to up us was we were what when where which who "
    "will with would yes you your".split()
)
"""Words that no English sentence does without, and that few other languages have."""


@dataclass(frozen=True)
class _Verdict:
    """What is known of an answer whatever it answers."""

    fault: str | None
    telltales: frozenset[str]
    """Words that speak of the prompt, unless the person brings them up."""
    english: bool


def keeper(identity: Identity) -> Callable[[object, Row], str | None]:
    """Return a function that says, in a word or two, why messages may not be trained on.

    The function takes the messages and the row of the plan that they answer. It returns None if
    nothing is wrong with them.
    """
    facts = {fact.id: fact for fact in identity.facts}
    grounding = Grounding(identity)
    prompt = frozenset(_runs(rules_text()))
    own = told(identity)
    names = frozenset(_WORD.findall(normalised(own))) - _ENGLISH
    longest = max(LONGEST_ANSWER, *(2 * len(fact.statement) for fact in identity.facts))
    verdicts: dict[str, _Verdict] = {}

    @cache
    def crude(text: str, longest: int) -> str | None:
        """Look at a message of either side."""
        if len(text) > longest:
            return "too long"
        if _MARK.search(text):
            if any(label not in own for label in _LABEL.findall(text)):
                return "leaked prompt"
            if any(gap not in own for gap in _GAP.findall(text)):
                return "placeholder"
        return None if prompt.isdisjoint(_runs(text)) else "leaked prompt"

    def judged(answer: str) -> _Verdict:
        """Remember verdicts: equal answers are common, and a verdict takes 100 us."""
        if answer not in verdicts:
            plain = normalised(answer)
            verdicts[answer] = _Verdict(
                fault=crude(answer, longest) or matcher.fault(answer, identity),
                telltales=frozenset(_TELLTALE.findall(plain)),
                english=_is_english(plain, names),
            )
        return verdicts[answer]

    def mistaken(answers: list[str], asked: str, row: Row) -> str | None:
        """Look at what the answers say, given what the person wrote."""
        found = [judged(answer) for answer in answers]
        for verdict in found:
            if verdict.fault:
                return verdict.fault
            if any(word not in normalised(asked) for word in verdict.telltales):
                return "leaked prompt"
            if not verdict.english and row.strategy != "greeting":
                return "not english"
        said, last = "\n".join(answers), answers[-1]
        if not all(meets(said, facts[name].expect) for name in row.facts):
            return "fact missing"
        if len(row.facts) == 1:  # of several facts, one may need what another forbids
            about_it = said if row.strategy == "correction" else last
            if mentions(about_it, facts[row.facts[0]].forbid):
                return "forbidden words"
        if row.strategy == "unknown attribute" and not mentions(last, matcher.REFUSALS):
            return "made-up answer"
        if row.strategy == "rival claim" and not _denies(last, identity):
            return "not denied"
        off_topic = row.strategy == "off topic"
        if off_topic and matcher.mentions_identity(last, identity):
            return "off topic, yet about itself"
        about_itself = answers[:-1] if off_topic else answers
        if any(grounding.invents(answer, asked) for answer in about_itself):
            return "made-up fact"
        return None

    def objection(messages: object, row: Row) -> str | None:
        try:
            turns = records.check(messages, "reply")
        except RecordError:
            return "malformed"
        if turns[0]["role"] == "system":
            return "system message"
        if len(turns) != 2 * row.turns:
            return "wrong turns"
        asked = [turn["content"] for turn in turns[::2]]
        answers = [turn["content"] for turn in turns[1::2]]
        odd = next(filter(None, (crude(question, LONGEST_QUESTION) for question in asked)), None)
        if reason := odd or mistaken(answers, "\n".join(asked), row):
            return reason
        return "repeated turn" if _repeats(asked) or _repeats(answers) else None

    return objection


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    """Return every `_RUN` words in a row."""
    return runs(_WORD.findall(text.casefold()), _RUN)


def _is_english(plain: str, names: frozenset[str]) -> bool:
    """Tell whether normalised text looks like it.

    Lists do, and so do texts of under eight Latin words, where ``names`` do not count.
    """
    if 3 * sum(not letter.isascii() for letter in plain) > len(plain):
        return False
    words = [word for word in _WORD.findall(plain) if word not in names]
    if len(words) < 8 or 3 * plain.count(",") >= len(words):
        return True
    return sum(word in _ENGLISH for word in words) >= 0.12 * len(words)


def _denies(said: str, identity: Identity) -> bool:
    """Tell whether ``said`` says no, or who the model is without a yes before it."""
    plain = normalised(said)
    if _NO.search(plain) or matcher.DENIAL.search(plain):
        return True
    return not plain.startswith("yes") and matcher.mentions_identity(said, identity)


def _repeats(texts: list[str]) -> bool:
    return len(texts) > 1 and len(set(map(normalised, texts))) < len(texts)
