"""Read requests and shape answers and errors as OpenAI, OpenRouter and Gemini do."""

import json
import time
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stubs.account import Settings
from stubs.talker import identity, tokens

Json = dict[str, Any]

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}
_FINISH = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refusal": "RECITATION",
    "error": "OTHER",
}
_RPC = "type.googleapis.com/google.rpc."
_FINE: deque[Json] = deque(maxlen=8)
"""Schemas that strict mode was seen to take."""


@dataclass(frozen=True)
class Reply:
    """What goes over the wire."""

    status: int
    body: bytes
    headers: dict[str, str]


def reply(body: Json, status: int = 200, **headers: str) -> Reply:
    """Return a JSON reply; ``Retry_After`` stands for the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **named})


class Refused(Exception):
    """A request that the API objects to."""

    def __init__(self, status: int, message: str, code: str | None = None, extra: Any = None):
        super().__init__(message)
        self.status, self.code, self.extra = status, code, extra

    def reply(self, dialect: str) -> Reply:
        """Say so in ``dialect``."""
        body = error(dialect, self.status, str(self), code=self.code, extra=self.extra)
        return reply(body, self.status)


def error(
    dialect: str, status: int, message: str, *, code: str | None = None, extra: Any = None
) -> Json:
    """Return the body of an error; ``extra`` is OpenRouter's metadata or Google's details."""
    if dialect == "gemini":
        said = {"code": status, "message": message, "status": _STATUS.get(status, "UNAVAILABLE")}
        return {"error": {**said, "details": extra} if extra else said}
    if dialect == "openrouter":
        told = {"code": status, "message": message}
        return {"error": {**told, "metadata": extra} if extra else told, "user_id": "user_stub"}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    kind = "requests" if code == "rate_limit_exceeded" else kind
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def detail(kind: str, **fields: Any) -> Json:
    """Return one of the details of a Google error."""
    return {"@type": _RPC + kind, **fields}


@dataclass(frozen=True)
class Ask:
    """A request for an answer, whatever its dialect."""

    dialect: str
    model: str
    system: str
    user: str
    form: str
    """``json_schema``, ``json_object`` or ``none``."""
    schema: Json
    limit: int
    """Longest answer in tokens, reasoning included; 0 for none."""

    @cached_property
    def identity(self) -> str:
        """What tells this prompt from others."""
        return identity(self.system, self.user)


def read_chat(dialect: str, body: Json, model: str = "") -> Ask:
    """Read the body of a chat completion; a batch names the model of all its requests."""
    model = body.get("model") or model
    messages = body.get("messages")
    if not model or not isinstance(messages, list) or not messages:
        raise Refused(400, "The body needs a model and messages.")
    known_model(dialect, model)
    texts = {"system": "", "user": ""}
    for message in messages:
        role = {"developer": "system"}.get(message["role"], message["role"])
        texts[role] = texts.get(role, "") + _text(message["content"])
    format_ = body.get("response_format") or {}
    form = {"text": "none"}.get(format_.get("type", "none"), format_.get("type", "none"))
    wanted = format_.get("json_schema") or {}
    if form == "json_schema" and not (wanted.get("name") and wanted.get("schema")):
        raise Refused(400, "response_format.json_schema needs a name and a schema.")
    if wanted.get("strict") and not _strict(wanted["schema"]):
        raise Refused(
            400,
            f"Invalid schema for response_format '{wanted['name']}': every object needs "
            "'additionalProperties' to be false and all its properties in 'required'.",
            "invalid_json_schema",
        )
    if dialect == "openai" and form == "json_object" and "json" not in str(texts).lower():
        raise Refused(400, "'messages' must contain the word 'json' to use 'json_object'.")
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 0
    schema = wanted.get("schema", {})
    return Ask(dialect, model, texts["system"], texts["user"], form, schema, limit)


def read_gemini(model: str, body: Json) -> Ask:
    """Read the body of a generateContent request."""
    known_model("gemini", model)
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refused(400, "* GenerateContentRequest.contents: contents is not specified")
    config = body.get("generationConfig") or {}
    if "additionalProperties" in json.dumps(config.get("responseSchema", {})):
        raise Refused(
            400,
            'Invalid JSON payload received. Unknown name "additionalProperties" at '
            "'generation_config.response_schema': Cannot find field.",
        )
    schema = config.get("responseJsonSchema") or config.get("responseSchema") or {}
    as_json = config.get("responseMimeType") == "application/json"
    if schema and not as_json:
        raise Refused(400, "A response schema needs responseMimeType application/json.")
    form = "json_schema" if schema else "json_object" if as_json else "none"
    system = _text((body.get("systemInstruction") or {}).get("parts", []))
    asked = [
        part for turn in contents if turn.get("role", "user") == "user" for part in turn["parts"]
    ]
    limit = config.get("maxOutputTokens") or 0
    return Ask("gemini", model, system, _text(asked), form, schema, limit)


def known_model(dialect: str, model: str) -> None:
    """Refuse a model that does not exist."""
    if not model.startswith("missing"):
        return
    if dialect == "openrouter":
        raise Refused(400, f"{model} is not a valid model ID")
    if dialect == "gemini":
        raise Refused(404, f"models/{model} is not found for API version v1beta.")
    raise Refused(404, f"The model '{model}' does not exist.", "model_not_found")


def _text(content: Any) -> str:
    return (
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    )


def _strict(schema: Json) -> bool:
    """Tell whether strict mode takes ``schema``; the walk would cost a sixth of a request."""
    if schema not in _FINE and _closed(schema):
        _FINE.append(schema)
    return schema in _FINE


def _closed(schema: Any) -> bool:
    """Tell whether every object in ``schema`` is what strict mode demands."""
    if isinstance(schema, list):
        return all(_closed(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" and (
        schema.get("additionalProperties") is not False
        or set(schema.get("required", ())) != set(schema.get("properties", {}))
    ):
        return False
    return all(_closed(part) for part in schema.values())


@dataclass(frozen=True)
class Said:
    """What the model says, and why it stopped."""

    text: str
    finish: str
    """``stop``, ``length``, ``content_filter``, ``refusal`` or ``error``."""
    model: str


def answer(ask: Ask, said: Said, settings: Settings, discount: float = 1.0) -> tuple[Json, float]:
    """Return the body of an answer, and what it costs in USD."""
    thoughts = 0 if said.finish == "error" else settings.thoughts
    asked = 0 if said.finish == "error" else tokens(ask.system + ask.user)
    spoken = tokens(said.text)
    usd = (asked * settings.price[0] + (spoken + thoughts) * settings.price[1]) / 1e6 * discount
    number = ask.identity[:24]
    if ask.dialect == "gemini":
        candidate: Json = {"finishReason": _FINISH[said.finish], "index": 0}
        if said.finish not in ("refusal", "error", "content_filter"):
            candidate["content"] = {"parts": [{"text": said.text}], "role": "model"}
        usage = {
            "promptTokenCount": asked,
            "candidatesTokenCount": spoken,
            "thoughtsTokenCount": thoughts,
            "totalTokenCount": asked + spoken + thoughts,
        }
        body = {"candidates": [candidate], "usageMetadata": usage}
        return {**body, "modelVersion": said.model, "responseId": number}, usd
    refused = said.finish == "refusal"
    finish = "stop" if refused else said.finish
    message = {
        "role": "assistant",
        "content": None if refused else said.text,
        "refusal": said.text if refused else None,
    }
    choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    if said.finish == "error":
        failure = {"code": 502, "message": "Upstream error", "metadata": {"provider_name": "Stub"}}
        choice["error"] = failure
    counts: Json = {
        "prompt_tokens": asked,
        "completion_tokens": spoken + thoughts,
        "total_tokens": asked + spoken + thoughts,
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }
    whole: Json = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": said.model,
        "choices": [choice],
        "usage": counts,
    }
    if ask.dialect == "openrouter":
        whole["provider"] = "Stub"
        choice["native_finish_reason"] = finish
        counts["cost"] = usd
    return whole, usd
