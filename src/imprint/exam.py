"""The held-out questions: phrasings that no training conversation has used."""

from dataclasses import dataclass

from imprint.identity import Identity
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
    """Return the held-out questions about ``identity``, suite by suite."""
    raise AssertionError("to come")
