"""Which phrasings are kept from training, so that a test asks what no training row has asked."""

import re
from functools import cache
from hashlib import blake2b

from imprint.text import normalised

SHARE = 0.15
"""Share of all phrasings that only the exam may use."""

EVERYDAY = frozenset({"hello", "thank you", "thank u", "good afternoon", "good evening"})
"""What everybody says, and nobody in other words: always trained, so that the exam may not ask."""

_PUNCTUATION = re.compile(r"[^\w\s]+")


def plain(text: str) -> str:
    """Return ``text`` without case, accents and punctuation: what two equal phrasings share.

    Example:
        >>> plain("What's  your name?") == plain("whats your name")
        True
    """
    return " ".join(_PUNCTUATION.sub("", normalised(text)).split())


@cache
def position(text: str) -> float:
    """Return a number from 0 to 1 that depends on the plain text only; low ones are held out."""
    return int.from_bytes(blake2b(plain(text).encode(), digest_size=7).digest(), "big") / (1 << 56)


def is_held_out(text: str, share: float = SHARE) -> bool:
    """Tell whether the phrasing ``text`` belongs to the exam.

    The answer depends on the words alone, so adding phrasings never moves another one across.

    Args:
        text: A question, or the pattern of one.
        share: Fraction of all phrasings that are held out.

    Example:
        >>> is_held_out("Who wrote Hamlet?"), is_held_out("What is your name?")
        (False, True)
        >>> is_held_out("WHAT IS YOUR NAME")
        True
    """
    return position(text) < share and plain(text) not in EVERYDAY
