"""What of a long conversation could have room: the rest is left out before it costs anything.

256 kB take a second to cut into tokens, and a small model reads a hundredth of them.
"""

import re

from imprint.engine import Engine, without_oldest
from imprint.records import Conversation

MARGIN = 1000
"""Characters in which a place to cut at is looked for."""
_WORD_END = re.compile(r"(?<=[^\W_])(?=[\s,.!?;:\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])")
"""Where a token ends whatever comes before or after."""


def most(engine: Engine) -> int:
    """Return the characters of which more never fit: the context full of the longest token."""
    words = engine.tokenizer
    longest = max(
        len(words.decode([token])) for token in set(range(words.vocabulary)) - words.special
    )
    return engine.model.config.context * longest


def cut(conversation: Conversation, *, characters: int) -> Conversation:
    """Leave out what does not fit, in the order of ``Engine.prompts``, which does the fine work.

    It finds the same tokens in what is left, unless the last message has so many characters and
    ``MARGIN`` of them in a row without the end of a word: then it may begin with other tokens.

    Args:
        conversation: Ends with the user.
        characters: More than these never fit.
    """
    left = conversation
    while (held := sum(len(turn["content"]) for turn in left)) > characters:
        shorter = without_oldest(left)
        if shorter is None:
            return [{**left[0], "content": _end(left[0]["content"], held - characters)}]
        left = shorter
    return left


def _end(text: str, spare: int) -> str:
    """Return ``text`` without most of its first ``spare`` characters."""
    least = max(0, spare - MARGIN)
    found = _WORD_END.search(text, least, spare)
    return text[found.start() if found else least :]
