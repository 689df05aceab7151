"""Documents of many genres: stories, guides, articles, profiles, letters, talks and quizzes.

The material is in data/documents/*.yaml, as rules of one grammar; quizzes are made of the everyday
questions that chat uses too, except the phrasings that only an exam may ask.
"""

from functools import cache
from typing import Any

from imprint.dice import Dice
from imprint.heldout import is_held_out
from imprint.sources.exchanges import groups, listed, load
from imprint.sources.grammar import Grammar, polished

GENRES = {"quiz": 1}
"""How often each genre is drawn, compared with the others."""

_DRAWN = tuple(genre for genre, weight in GENRES.items() for _ in range(weight))

QUIZ_FRAMES = (
    ("Q: {question}\nA: {answer}", "\n\n"),
    ("Question: {question}\nAnswer: {answer}", "\n\n"),
    ('"{question}" asked {one}.\n"{answer}" said {other}.', "\n"),
    ('{one} asked, "{question}" {other} replied, "{answer}"', "\n"),
    ("- {question}\n- {answer}", "\n"),
    ("{question} {answer}", "\n"),
)
"""How a quiz writes a question with its answer, and what stands between two of them."""

ASKERS = (
    ("the teacher", "the girl"),
    ("the child", "the mother"),
    ("the boy", "his grandfather"),
    ("the visitor", "the guide"),
    ("one student", "another"),
    ("the reporter", "the expert"),
    ("the host", "the guest"),
    ("the customer", "the shopkeeper"),
    ("the little sister", "her brother"),
    ("the neighbour", "the old man"),
)

_QUIZ_LENGTHS = range(3, 8)
_TABLE_WEIGHT = 10


def document(dice: Dice) -> str:
    """Return one document, some hundred to two thousand characters long."""
    genre = dice.pick(_DRAWN)
    if genre == "quiz":
        return quiz(dice)
    return _grammar().text(genre, dice)


def quiz(dice: Dice) -> str:
    """Return some everyday questions with their answers, in one of several forms."""
    frame, joint = dice.pick(QUIZ_FRAMES)
    one, other = dice.pick(ASKERS)
    pairs = _pairs()
    parts = []
    for _ in range(dice.pick(_QUIZ_LENGTHS)):
        questions, answers = dice.pick(dice.pick(pairs))
        fields = {"question": dice.pick(questions), "answer": dice.pick(answers)}
        parts.append(frame.format(one=one, other=other, **fields))
    return polished(joint.join(parts))


Pairs = list[list[tuple[list[str], tuple[str, ...]]]]


@cache
def _pairs() -> Pairs:
    """Return the questions that may be printed, with their answers; tables weighted."""
    found: Pairs = []
    for group in groups():
        pairs = []
        for family in group:
            questions = [text for text in family.questions if not is_held_out(text)]
            if questions:
                pairs.append((questions, family.answers))
        if pairs:
            found += [pairs] * min(len(group), _TABLE_WEIGHT)
    return found


@cache
def _grammar() -> Grammar:
    """Return the rules of all files together; the fields of a mapping may be numbers."""
    rules: dict[str, Any] = {}
    for name in listed("documents"):
        for rule, alternatives in load(name).items():
            if rule in rules:
                raise ValueError(f"{name}: the rule {rule!r} exists already")
            rules[rule] = [_text(alternative) for alternative in alternatives]
    return Grammar(rules)


def _text(alternative: object) -> str | dict[str, str]:
    if isinstance(alternative, dict):
        return {str(key): str(value) for key, value in alternative.items()}
    return str(alternative)
