"""Compare texts the way a forgiving reader would: whole words, whatever the case and accents."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

_TYPESET = str.maketrans(
    {
        **dict.fromkeys((0x2018, 0x2019), "'"),
        **dict.fromkeys((0x201C, 0x201D), '"'),
        **dict.fromkeys(range(0x2010, 0x2015), "-"),
        **dict.fromkeys((0x00A0, 0x202F), " "),
        0x2026: "...",
    }
)
"""Quotes, dashes, spaces and dots that a printer has and a keyboard has not."""


def typed(text: str) -> str:
    r"""Return ``text`` with typographic quotes, dashes and spaces as a keyboard types them.

    Example:
        >>> typed("It\N{RIGHT SINGLE QUOTATION MARK}s done\N{HORIZONTAL ELLIPSIS}")
        "It's done..."
    """
    return text.translate(_TYPESET)


@cache
def normalised(text: str) -> str:
    r"""Return ``text`` in lower case, without accents, with plain quotes and single spaces.

    Example:
        >>> normalised("Je  m'appelle “Zoé”")
        'je m\'appelle "zoe"'
    """
    if text.isascii():  # the rule, and 20 times as fast
        return " ".join(text.casefold().split())
    split = unicodedata.normalize("NFKD", typed(text))
    bare = "".join(letter for letter in split if not unicodedata.combining(letter))
    return " ".join(bare.casefold().split())


@cache
def _whole(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(normalised(phrase))}(?!\w)")


def contains(text: str, phrase: str) -> bool:
    """Tell whether ``phrase`` stands in ``text`` as whole words, whatever the case and accents.

    Example:
        >>> contains("I have 561M parameters.", "561m"), contains("automodal", "Modal")
        (True, False)
    """
    plain = normalised(text)
    # Most often it does not stand there at all, and the pattern is slow to find that out.
    return normalised(phrase) in plain and _whole(phrase).search(plain) is not None


def runs(words: Sequence[str], length: int) -> Iterator[tuple[str, ...]]:
    """Return every ``length`` words in a row.

    Example:
        >>> list(runs(["who", "made", "you"], 2))
        [('who', 'made'), ('made', 'you')]
    """
    return zip(*(words[start:] for start in range(length)), strict=False)


def meets(answer: str, expect: Sequence[Sequence[str]]) -> bool:
    """Tell whether ``answer`` contains one alternative of every list in ``expect``."""
    return all(any(contains(answer, phrase) for phrase in group) for group in expect)


def mentions(answer: str, phrases: Sequence[str]) -> bool:
    """Tell whether ``answer`` contains any of ``phrases``."""
    return any(contains(answer, phrase) for phrase in phrases)
