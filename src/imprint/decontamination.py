"""Find conversations that give away a question of the held-out test."""

from collections.abc import Callable, Iterable

from imprint.heldout import plain
from imprint.records import Conversation
from imprint.text import runs

GRAM = 8
"""Words in a row that, when shared, betray a question."""


def detector(exam: Iterable[Conversation]) -> Callable[[Conversation], str | None]:
    """Return a function that tells which words of a conversation are held-out, None if none are.

    Compared are the words of the users, without case, accents and punctuation. Eight in a row of
    anything a user says in the exam are held-out. Questions shorter than that are held-out as a
    whole; what comes before them in the exam, such as a greeting, is not.

    Args:
        exam: Conversations that end with the question to be answered.

    Example:
        >>> found = detector([[{"role": "user", "content": "Who made you?"}]])
        >>> found([{"role": "user", "content": "who made  YOU"}])
        'who made you'
        >>> found([{"role": "user", "content": "Say who made you"}])
    """
    held_out: set[tuple[str, ...]] = set()
    for conversation in exam:
        for message in conversation:
            if message["role"] == "user":
                held_out.update(runs(_words(message["content"]), GRAM))
        held_out.add(_words(conversation[-1]["content"])[:GRAM])
    held_out.discard(())  # a question without words, such as "???", gives nothing away

    def given_away(conversation: Conversation) -> str | None:
        for message in conversation:
            if message["role"] == "user":
                said = _words(message["content"])
                for gram in runs(said, GRAM) if len(said) >= GRAM else (said,):
                    if gram in held_out:
                        return " ".join(gram)
        return None

    return given_away


def _words(text: str) -> tuple[str, ...]:
    return tuple(plain(text).split())
