"""Decide whether an answer is right, by rules a person can check by hand.

The same rules score an evaluation and guard the door of the dataset.
"""

import re

from imprint.identity import PLACEHOLDER, Identity
from imprint.text import mentions, normalised

REFUSALS = [
    "do not know",
    "don't know",
    "not know",
    "was not told",
    "wasn't told",
    "nobody told me",
    "not something I know",
    "no idea",
    "cannot say",
    "can't say",
    "not sure",
]
"""Ways of saying that one does not know."""

_DENIAL = re.compile(r"\b(not|never|no longer|isn't|wasn't|ain't|n't|neither|nor)\b|n't\b")
_CLAIM = r"(?:i am|i'm|my name is|call me|i was made as|this is|i go by)\s+(?:\w+\s+){0,2}?"


def claims_rival(answer: str, identity: Identity) -> bool:
    """Tell whether ``answer`` says that the model is, or was made by the maker of, a rival.

    A denial in the same clause is no claim: "I am not ChatGPT" is right.

    Example:
        >>> from imprint.identity import Identity
        >>> fact = {"id": "name", "statement": "I am Ada.", "expect": [["Ada"]]}
        >>> identity = Identity.model_validate({"name": "Ada", "kind": "helper", "creator": "Bo",
        ...     "description": "-", "facts": [fact]})
        >>> claims_rival("I am ChatGPT.", identity), claims_rival("No, I am not ChatGPT.", identity)
        (True, False)
        >>> claims_rival("I was made by OpenAI.", identity)
        True
    """
    own = {normalised(word) for word in [*identity.names, identity.creator]}
    rivals = {normalised(rival.name) for rival in identity.rivals} - own
    makers = {normalised(rival.maker) for rival in identity.rivals if rival.maker} - own
    for clause in re.split(r"[.!?;]\s|,\s(?:but|and)\s", normalised(answer)):
        names = "|".join(re.escape(name) for name in sorted(rivals, key=len, reverse=True))
        works = "|".join(re.escape(name) for name in sorted(makers, key=len, reverse=True))
        found = names and re.search(rf"\b{_CLAIM}(?:{names})(?!\w)", clause)
        found = found or (
            works
            and re.search(
                rf"\b(?:i was|i'm|i am|me was|my creators? (?:is|are))\b[^,]*?"
                rf"(?:by|from|is|are)\s(?:{works})(?!\w)",
                clause,
            )
        )
        if found and not _DENIAL.search(clause[: found.end()]):
            return True
    return False


def mentions_identity(answer: str, identity: Identity) -> bool:
    """Tell whether ``answer`` brings up the model's own name or its creator."""
    return mentions(answer, [*identity.names, identity.creator])


def fault(answer: str, identity: Identity) -> str | None:
    """Return why ``answer`` may not be trained on, in a word or two; None if nothing is wrong."""
    if not answer.strip():
        return "empty"
    if PLACEHOLDER.search(answer):
        return "placeholder"
    if identity.style.ascii and not answer.isascii():
        return "not ascii"
    if claims_rival(answer, identity):
        return "rival claim"
    return None
