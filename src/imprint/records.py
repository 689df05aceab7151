"""Conversations on disk: one JSON value a line, checked as they are read."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

from imprint.artifacts import written
from imprint.errors import RecordError


class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Conversation = list[Message]
"""User first, alternating, assistant last; a system message may come before."""

_HALF = re.compile("[\ud800-\udfff]")
"""JSON can spell halves of characters, which have no UTF-8."""

_KEYS = {"role", "content"}

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def check(messages: object, where: str, *, last: str = "assistant") -> Conversation:
    """Return ``messages`` as a conversation.

    Args:
        messages: What was read.
        where: File and line, for messages.
        last: Role of the last message: ``assistant`` to train on, ``user`` to be answered.

    Raises:
        RecordError: Roles do not alternate, or a message is empty or no message at all.
    """
    if not isinstance(messages, list) or not messages:
        raise RecordError(f"{where}: should be a list of messages, at least one")
    turns: Conversation = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.keys() != _KEYS:
            raise RecordError(
                f"{where}: message {number + 1} should have just a role and a content"
            )
        content = message["content"]
        if not isinstance(content, str) or not content.strip():
            raise RecordError(f"{where}: message {number + 1} has no text")
        if not content.isascii() and _HALF.search(content):
            raise RecordError(f"{where}: message {number + 1} holds half a surrogate pair")
        turns.append({"role": message["role"], "content": content})
    spoken = turns[1:] if turns[0]["role"] == "system" else turns
    for number, turn in enumerate(spoken):
        role = ("user", "assistant")[number % 2]
        if turn["role"] != role:
            place = number + 1 + len(turns) - len(spoken)
            raise RecordError(f"{where}: message {place} should have role {role!r}")
    if not spoken or spoken[-1]["role"] != last:
        raise RecordError(f"{where}: the last message should have role {last!r}")
    return turns


def lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each line is (``file:line``) and the JSON value it holds.

    Raises:
        RecordError: A line is empty, is not UTF-8 or is not JSON.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path}:{number}"
                if not line.strip():
                    raise RecordError(f"{where}: an empty line. Delete the line.")
                try:
                    yield where, json.loads(line)
                except ValueError as error:
                    raise RecordError(f"{where}: not a JSON value ({error})") from None
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file. Check the path.") from None


def conversations(path: Path) -> Iterator[Conversation]:
    """Yield the conversations of a .jsonl file: lists of messages, or ``{"messages": [...]}``.

    Raises:
        RecordError: A line holds no well-formed conversation.
    """
    for where, value in lines(path):
        yield check(
            value["messages"] if isinstance(value, dict) and "messages" in value else value, where
        )


def texts(path: Path) -> Iterator[str]:
    """Yield the documents of a .jsonl file of ``{"text": ...}`` lines.

    Raises:
        RecordError: A line holds no text.
    """
    for where, value in lines(path):
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise RecordError(f"{where}: should be an object with a text")
        yield value["text"]


def write_lines(path: Path, values: Iterable[object]) -> int:
    """Write ``values`` to ``path``, one JSON value a line; return how many there were."""
    count = 0
    with written(path) as file:
        for value in values:
            file.write(_ENCODER.encode(value) + "\n")
            count += 1
    return count
