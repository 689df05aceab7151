"""Ask a stub over plain sockets, in any dialect, and look at what comes over the wire."""

import http.client
import json
from typing import Any, NamedTuple

from stubs.server import Stub

SYSTEM = "Write JSON."
USER = "Conversation: 1\nStrategy: direct\nFact: My name is Ada.\nExchanges: 1"
TURN = {
    "type": "object",
    "properties": {"role": {"type": "string"}, "content": {"type": "string"}},
    "required": ["role", "content"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"messages": {"type": "array", "items": TURN}},
    "required": ["messages"],
    "additionalProperties": False,
}
FORM = {
    "type": "json_schema",
    "json_schema": {"name": "conversation", "strict": True, "schema": SCHEMA},
}
DIALECTS = ("openai", "openrouter", "gemini")


class Wire(NamedTuple):
    """A whole response; the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    text: bytes

    @property
    def body(self) -> Any:
        """What it says, read as JSON."""
        return json.loads(self.text)


def call(
    stub_url: str, path: str, body: object = None, *, key: str = "stub-key", timeout: float = 5
) -> Wire:
    """POST ``body``, or GET if there is none; with a key for every dialect."""
    connection = http.client.HTTPConnection(stub_url.removeprefix("http://"), timeout=timeout)
    try:
        named = {"Authorization": f"Bearer {key}", "x-goog-api-key": key}
        sent = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, sent, named)
        answer = connection.getresponse()
        return Wire(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def chat(user: str = USER, **fields: Any) -> dict[str, Any]:
    """Return the body of a chat completion."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    return {"model": "stub-model", "messages": messages, "response_format": FORM, **fields}


def native(user: str = USER, **config: Any) -> dict[str, Any]:
    """Return the body that Gemini takes; ``config`` is about the generation."""
    settings = {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA, **config}
    return {
        "systemInstruction": {"parts": [{"text": SYSTEM}]},
        "contents": [{"role": "user", "parts": [{"text": user}]}],
        "generationConfig": settings,
    }


def ask(stub: Stub, dialect: str, user: str = USER, **options: Any) -> Wire:
    """Ask for an answer to ``user`` in ``dialect``."""
    if dialect == "gemini":
        path = "/v1beta/models/stub-model:generateContent"
        return call(stub.url, path, native(user), **options)
    path = stub.base(dialect).removeprefix(stub.url) + "/chat/completions"
    return call(stub.url, path, chat(user), **options)


def spoken(wire: Wire) -> str:
    """Return the text of an answer, of whatever dialect."""
    if "candidates" in wire.body:
        return str(wire.body["candidates"][0]["content"]["parts"][0]["text"])
    return str(wire.body["choices"][0]["message"]["content"])
