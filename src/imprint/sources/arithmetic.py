"""Small sums in words and digits, worked out rather than written down."""

import operator
from dataclasses import dataclass

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
).split()
"""Number words from 0 to 20, the largest number that occurs."""

LARGEST = 20
_TERM = 10
"""Largest number that is added, subtracted or subtracted from: more sums teach nothing new."""

_WORDS = {
    "plus": (operator.add, "+"),
    "minus": (operator.sub, "-"),
    "times": (operator.mul, "x"),
}

_ASKED = {
    "plus": ("What do you get if you add {a} and {b}?", "Add {a} and {b}, please."),
    "minus": (
        "What is left if you take {b} away from {a}?",
        "If I have {a} apples and eat {b}, how many are left?",
    ),
    "times": ("Multiply {a} by {b}, please.", "What do you get if you multiply {a} by {b}?"),
}


@dataclass(frozen=True)
class Sum:
    """One sum: how it is asked and answered."""

    id: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


def groups() -> list[tuple[Sum, ...]]:
    """Return all sums whose numbers and result lie between 0 and 20, by kind of sum.

    Example:
        >>> adding, *_ = groups()
        >>> adding[0].questions[0], adding[0].answers[0]
        ('What is one plus one?', 'One plus one is two.')
    """
    found = []
    for word, (work, sign) in _WORDS.items():
        pairs = [
            (a, b)
            for a in range(1, _TERM + 1)
            for b in range(1, _TERM + 1)
            if 0 < work(a, b) <= LARGEST
        ]
        found.append(tuple(_sum(word, sign, a, b, work(a, b)) for a, b in pairs))
    found.append(tuple(_half(n) for n in range(2, LARGEST + 1, 2)))
    found.append(tuple(_after(n) for n in range(1, LARGEST)))
    return found


def _sum(word: str, sign: str, a: int, b: int, result: int) -> Sum:
    names = {"a": NUMBERS[a], "b": NUMBERS[b]}
    spoken = f"{NUMBERS[a]} {word} {NUMBERS[b]}"
    return Sum(
        id=f"{word}-{a}-{b}",
        questions=(
            f"What is {spoken}?",
            f"What is {a} {sign} {b}?",
            f"How much is {spoken}?",
            f"{a} {sign} {b} = ?",
            *(asked.format_map(names) for asked in _ASKED[word]),
        ),
        answers=(
            f"{spoken.capitalize()} is {NUMBERS[result]}.",
            f"{a} {sign} {b} = {result}.",
            f"That is {NUMBERS[result]}.",
        ),
    )


def _half(n: int) -> Sum:
    return Sum(
        id=f"half-{n}",
        questions=(
            f"What is half of {NUMBERS[n]}?",
            f"How much is half of {n}?",
            f"What do you get if you divide {NUMBERS[n]} by two?",
        ),
        answers=(f"Half of {NUMBERS[n]} is {NUMBERS[n // 2]}.", f"It is {NUMBERS[n // 2]}."),
    )


def _after(n: int) -> Sum:
    return Sum(
        id=f"after-{n}",
        questions=(
            f"What number comes after {NUMBERS[n]}?",
            f"Which number follows {n}?",
            f"When I count, what do I say after {NUMBERS[n]}?",
        ),
        answers=(f"After {NUMBERS[n]} comes {NUMBERS[n + 1]}.", f"The next number is {n + 1}."),
    )
