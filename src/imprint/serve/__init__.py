"""The model behind an OpenAI-compatible API and a web page.

``app`` is all of it, as any ASGI server runs it: `imprint serve` here, ``cloud`` on Modal. A
request is checked by ``protocol``, waits in ``service`` for a row of the one batch, and goes back
as ``answers`` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from imprint.engine import Engine


@dataclass(frozen=True)
class Settings:
    """What a server allows."""

    api_key: str | None = None
    """What clients have to show as a bearer token; None to ask for none."""
    queue: int = 64
    """Answers that may wait for a row; whoever comes then is told to come again."""
    seconds: float = 120.0
    """Longest time for a request, waiting included; an answer is cut then."""
    body_bytes: int = 1 << 18
    """Longest request body."""
    body_seconds: float = 20.0
    """Longest time a client may take to send it."""
    turns: int = 256
    """Most messages of a request."""
    choices: int = 8
    """Most answers to one request."""
    max_tokens: int = 512
    """Length of an answer where the client does not say."""


def app(
    engine: "Engine", *, card: Mapping[str, Any] | None = None, settings: Settings | None = None
) -> "FastAPI":
    """Return the API and the page, as an ASGI application.

    Args:
        engine: Whose model answers.
        card: Who the model should be, see ``card``; its name is the model's id.
        settings: Limits; by default those of ``Settings``, with the key in IMPRINT_API_KEY.
    """
    from imprint.serve.api import build

    return build(engine, card=dict(card or {}), settings=settings or from_environment())


def from_environment() -> Settings:
    """Return the default settings with the key that the environment has in IMPRINT_API_KEY."""
    import os

    return Settings(api_key=os.environ.get("IMPRINT_API_KEY") or None)


def card(checkpoint: Path) -> dict[str, Any]:
    """Return who the model in ``checkpoint`` should be, and what it passed.

    Args:
        checkpoint: Its evaluation is eval/NAME.json in the same folder, which names the identity
            file. What is not there is left out.
    """
    from imprint.serve.about import found

    return found(checkpoint)
