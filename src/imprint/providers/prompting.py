"""What a large language model is asked to write a conversation, and how its answer is read.

The words are in prompt.md beside this module; here values are put into them. All text of an
identity is taken as it is: a ``$`` or a brace in it means nothing.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from imprint.identity import Identity
from imprint.plan import Row
from imprint.records import Conversation
from imprint.text import typed

_FENCE = re.compile(r"\A```(?:json)?\s(.*)```\Z", re.DOTALL)
_PLACEHOLDER = re.compile(r"\$(\w+)")


class Turn(BaseModel):
    """One message of the wanted conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["user", "assistant"] = Field(
        description="user: the person writes; assistant: the model answers."
    )
    content: str = Field(description="What is said, as plain text.")


class Answer(BaseModel):
    """The wanted conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: list[Turn] = Field(
        description="The conversation in order: the person first, then in turn, an answer last."
    )


class _Form:
    """A part of prompt.md. Its lines are repeated or left out as their values want it."""

    def __init__(self, text: str) -> None:
        # Text, name, text, name, ... text: string.Template would look for names in every row.
        self._lines = [_PLACEHOLDER.split(line) for line in text.strip().splitlines()]

    def filled(self, values: Mapping[str, Sequence[str]]) -> str:
        """Return the text with ``values`` in it.

        Raises:
            KeyError: A placeholder has no entry in ``values``.
        """
        lines = []
        for parts in self._lines:
            names = parts[1::2]
            if not names:
                lines.append(parts[0])
            for chosen in zip(*(values[name] for name in names), strict=False):
                line = parts.copy()
                line[1::2] = chosen
                lines.append("".join(line))
        return "\n".join(lines)


def _sections(text: str, mark: str) -> dict[str, str]:
    """Return the parts of ``text`` by their headings, which start with ``mark``."""
    _, *parts = re.split(rf"^{mark} (.+)\n", text, flags=re.MULTILINE)
    return {head: body.strip() for head, body in zip(parts[::2], parts[1::2], strict=True)}


_TEXT = Path(__file__).with_name("prompt.md").read_text(encoding="utf-8")
_PARTS = _sections(_TEXT, "#")
_SYSTEM, _ROW = _Form(_PARTS["System"]), _Form(_PARTS["Row"])
_STRATEGIES = _sections(_PARTS["Strategies"], "##")

VERSION = int(_TEXT.removeprefix("<!-- version: ").split(maxsplit=1)[0])
"""Version of the prompt: the `version` of every provider that asks with it."""


def system(identity: Identity) -> str:
    """Return the part of the prompt that is the same for every row: render it once and keep it."""
    rivals = [
        f"{_line(rival.name)} ({_line(rival.maker)})" if rival.maker else _line(rival.name)
        for rival in identity.rivals
    ]
    limited = [fact for fact in identity.facts if fact.forbid]
    style = identity.style
    return _SYSTEM.filled(
        {
            "name": [_line(identity.name)],
            "aliases": _listed(identity.aliases),
            "kind": [_line(identity.kind)],
            "creator": [_line(identity.creator)],
            "description": [identity.description],
            "fact": [_line(fact.id) for fact in identity.facts],
            "statement": [_line(fact.statement) for fact in identity.facts],
            "expect": [
                "; ".join(" | ".join(map(_line, group)) for group in fact.expect)
                for fact in identity.facts
            ],
            "limited": [_line(fact.id) for fact in limited],
            "forbidden": [", ".join(map(_line, fact.forbid)) for fact in limited],
            "unknown": _listed(identity.unknown),
            "rivals": _listed(rivals),
            "tone": [_line(style.tone)],
            "characters": ["ASCII characters"] if style.ascii else [],
            "languages": _listed(style.languages),
            "language_note": [_line(style.language_note)],
        }
    )


def user(row: Row, identity: Identity, *, ask: int) -> str:
    """Return the part of the prompt that is about ``row``.

    Args:
        row: The conversation to be.
        identity: Who it is about.
        ask: 1 at first; more where earlier answers were of no use.
    """
    return _ROW.filled(
        {
            "index": [str(row.index)],
            "strategy": [row.strategy],
            "explanation": [_STRATEGIES[row.strategy]],
            "topic": [_line(name) for name in row.facts],
            "fact": [_line(identity.fact(name).statement) for name in row.facts],
            "subject": [_line(row.subject)] if row.subject is not None else [],
            "exchanges": [str(row.turns)],
            "persona": [row.persona],
            "register": [] if row.typos else [row.register],
            "mistyped": [row.register] if row.typos else [],
            "opener": [row.opener] if row.opener else [],
            "take": [str(ask)] if ask > 1 else [],
        }
    )


def max_tokens(row: Row) -> int:
    """Return how long an answer about ``row`` may get, in tokens, thoughts not included."""
    return 120 + 220 * row.turns


def rules_text() -> str:
    """Return the words of the prompt that no identity and no row brings in.

    An answer that holds a sentence of it has leaked its instructions.
    """
    return _PLACEHOLDER.sub("", "\n\n".join(_PARTS.values()))


def schema() -> dict[str, Any]:
    """Return the JSON schema of `Answer` in the form that every server takes.

    There are no references in it, and every object has all of its keys and no others.
    """
    found = Answer.model_json_schema()
    plain: dict[str, Any] = _inlined(found, found["$defs"])
    return plain


def parse(text: str, *, ascii: bool = False) -> Conversation:
    """Return the conversation that a model answered with.

    Args:
        text: A JSON object as `Answer` describes it; a Markdown fence may be around it.
        ascii: Type quotes, dashes and the like as a keyboard has them.

    Raises:
        ValueError: It is anything else, or anything is added to it.
    """
    text = text.strip()
    fenced = _FENCE.match(text)
    try:
        answer = Answer.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"{part}: " for part in fault["loc"])
        raise ValueError(f"not the conversation asked for: {where}{fault['msg']}") from None
    plain = typed if ascii else str
    return [{"role": turn.role, "content": plain(turn.content)} for turn in answer.messages]


def _line(text: str) -> str:
    """Return ``text`` on one line: a label stands only where the prompt puts one."""
    return " ".join(text.split())


def _listed(texts: Sequence[str]) -> list[str]:
    return [", ".join(map(_line, texts))] if texts else []


def _inlined(part: Any, parts: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(item, parts) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(parts[part["$ref"].rpartition("/")[2]], parts)
    # Titles and docstrings are for people who read the code.
    drop = {"$defs", "title", *(["description"] if part.get("type") == "object" else [])}
    return {key: _inlined(value, parts) for key, value in part.items() if key not in drop}
