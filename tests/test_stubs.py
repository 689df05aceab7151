"""The stub server keeps to the protocols that it stands in for."""

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from stubs.asking import DIALECTS, SCHEMA, SYSTEM, USER, ask, call, chat, native, spoken
from stubs.faults import BROKEN, KINDS, REFUSALS, SPOILED
from stubs.server import Stub
from stubs.talker import identity


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as running:
        yield running


def official(stub: Stub, call: str, *, key: str = "stub-key", **fields: Any) -> Any:
    """Call the official client, without its own retries."""

    async def run() -> Any:
        base = stub.base("openai")
        async with openai.AsyncOpenAI(base_url=base, api_key=key, max_retries=0) as client:
            if call == "models":
                return [model.id async for model in client.models.list()]
            return await client.chat.completions.create(**{**chat(), **fields})

    return asyncio.run(run())


def test_the_official_client_reads_an_answer(stub: Stub) -> None:
    answer = official(stub, "chat")
    choice = answer.choices[0]
    assert (answer.object, answer.model) == ("chat.completion", "stub-model")
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert json.loads(choice.message.content)["messages"][-1]["content"] == "My name is Ada."
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert official(stub, "models") == ["stub-model"]


def test_the_official_client_knows_every_error() -> None:
    with Stub(script=("rate-limit", "reset", "overloaded-503")) as stub:
        with pytest.raises(openai.RateLimitError) as limited:
            official(stub, "chat")
        assert limited.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.APIConnectionError):
            official(stub, "chat")
        with pytest.raises(openai.InternalServerError):
            official(stub, "chat")
        with pytest.raises(openai.AuthenticationError):
            official(stub, "chat", key="wrong")
        with pytest.raises(openai.NotFoundError):
            official(stub, "chat", model="missing-model")
        with pytest.raises(openai.BadRequestError):
            official(stub, "chat", response_format={"type": "json_schema"})
        loose = {"name": "loose", "strict": True, "schema": {"type": "object"}}
        with pytest.raises(openai.BadRequestError, match="additionalProperties"):
            official(stub, "chat", response_format={"type": "json_schema", "json_schema": loose})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_wrong_key_is_refused_in_the_words_of_the_api(stub: Stub, dialect: str) -> None:
    wire = ask(stub, dialect, key="wrong")
    assert wire.status == (400 if dialect == "gemini" else 401)
    assert ("API_KEY_INVALID" in str(wire.body)) == (dialect == "gemini")
    assert (stub.count.received, stub.count.answered, stub.count.faults) == (1, 0, {"refused": 1})


def test_unknown_models_are_refused(stub: Stub) -> None:
    wire = call(stub.url, "/api/v1/chat/completions", chat(model="missing/one"))
    assert (wire.status, wire.body["error"]["code"]) == (400, 400)
    assert "is not a valid model ID" in wire.body["error"]["message"]
    wire = call(stub.url, "/v1beta/models/missing:generateContent", native())
    assert (wire.status, wire.body["error"]["status"]) == (404, "NOT_FOUND")
    assert call(stub.url, "/v1beta/models/missing").status == 404
    assert call(stub.url, "/v1beta/models/other").body["name"] == "models/other"


def test_openrouter_tells_its_price_and_what_is_left(stub: Stub) -> None:
    cost = ask(stub, "openrouter").body["usage"]["cost"]
    assert 0 < cost == stub.count.cost
    assert call(stub.url, "/api/v1/key").body["data"]["limit_remaining"] == 10 - cost
    card = call(stub.url, "/api/v1/models").body["data"][0]
    assert card["pricing"] == {"prompt": "0.0000001000", "completion": "0.0000004000"}


def test_gemini_takes_its_two_kinds_of_schema(stub: Stub) -> None:
    answer = ask(stub, "gemini").body
    usage = answer["usageMetadata"]
    assert answer["candidates"][0]["finishReason"] == "STOP"
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    path = "/v1beta/models/stub-model:generateContent"
    wire = call(stub.url, path, native(responseJsonSchema=None, responseSchema=SCHEMA))
    assert (wire.status, wire.body["error"]["status"]) == (400, "INVALID_ARGUMENT")
    fine = {"type": "OBJECT", "properties": {"color": {"type": "STRING", "enum": ["red"]}}}
    wire = call(stub.url, path, native(responseJsonSchema=None, responseSchema=fine))
    assert json.loads(spoken(wire)) == {"color": "red"}


def test_an_answer_longer_than_asked_for_is_cut(stub: Stub) -> None:
    choice = call(stub.url, "/v1/chat/completions", chat(max_tokens=9)).body["choices"][0]
    assert (choice["finish_reason"], len(choice["message"]["content"])) == ("length", 36)
    path = "/v1beta/models/stub-model:generateContent"
    candidate = call(stub.url, path, native(maxOutputTokens=9)).body["candidates"][0]
    assert candidate["finishReason"] == "MAX_TOKENS"


REFUSED = {
    "rate-limit": (429, "limit", "limit", "RESOURCE_EXHAUSTED"),
    "rate-limit-bare": (429, "limit", "limit", "RESOURCE_EXHAUSTED"),
    "per-minute": (429, "rate_limit_exceeded", "X-RateLimit-Reset", "PerMinute"),
    "per-day": (429, "(RPD)", "free-models-per-day", "PerDay"),
    "no-credit": (402, "insufficient_quota", "credits", "credits"),
    "no-quota": (429, "insufficient_quota", "credits", "credits"),
    "in-flight-budget": (402, "credits", "openrouter_in_flight_budget", "credits"),
    "overloaded-500": (500, "server_error", "'code': 500", "INTERNAL"),
    "overloaded-502": (502, "server_error", "'code': 502", "UNAVAILABLE"),
    "overloaded-503": (503, "server_error", "'code': 503", "UNAVAILABLE"),
    "error-in-200": (200, "error", "'code': 502", "'code': 502"),
    "blocked-prompt": ((400, 403, 200), "content_filter", "reasons", "blockReason"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_is_put_as_the_api_puts_it(kind: str, dialect: str) -> None:
    with Stub(script=(kind,), retry_after=7) as stub:
        wire, place = ask(stub, dialect), DIALECTS.index(dialect)
        status, *words = REFUSED[kind]
        assert wire.status == (status[place] if isinstance(status, tuple) else status)
        assert words[place] in str(wire.body)
        timed = kind == "rate-limit" or (kind, dialect) == ("in-flight-budget", "openrouter")
        assert wire.headers.get("retry-after") == ("7" if timed else None)
        assert ("'7s'" in str(wire.body)) == (dialect == "gemini" and kind.startswith("per-"))
        assert ask(stub, dialect).status == 200
        seen = stub.count
        assert (seen.received, seen.answered, seen.faults) == (2, 1, {kind: 1})
        assert seen.answered_to == {identity(SYSTEM, USER): 1}


@pytest.mark.parametrize("kind", ["html", "html-502"])
def test_a_page_is_no_json(kind: str) -> None:
    with Stub(script=(kind,)) as stub:
        wire = ask(stub, "openai")
        assert (wire.status, wire.headers["content-type"][:9]) == (REFUSALS[kind], "text/html")
        assert wire.text.startswith(b"<!DOCTYPE") and stub.count.cost == 0


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("kind", SPOILED)
def test_a_spoiled_answer_is_paid_and_of_no_use(kind: str, dialect: str) -> None:
    with Stub(script=(kind,)) as stub:
        wire, gemini = ask(stub, dialect), dialect == "gemini"
        part = wire.body["candidates" if gemini else "choices"][0]
        finish = part["finishReason" if gemini else "finish_reason"]
        stopped = {
            "truncated": "MAX_TOKENS" if gemini else "length",
            "content-filter": "SAFETY" if gemini else "content_filter",
            "refusal": "RECITATION" if gemini else "stop",
            "error-in-choice": "OTHER" if gemini else "error",
        }
        assert (wire.status, finish) == (200, stopped.get(kind, "STOP" if gemini else "stop"))
        if kind == "refusal" and not gemini:
            assert part["message"]["refusal"] and part["message"]["content"] is None
        if kind == "error-in-choice" and not gemini:
            assert part["error"]["code"] == 502
        if kind == "rerouted":
            assert wire.body["modelVersion" if gemini else "model"] == "stub-model-substitute"
        said = spoken(wire) if kind not in stopped or kind == "truncated" else ""
        if kind in ("truncated", "not-json"):
            with pytest.raises(ValueError):
                json.loads(said)
        marks = {"rival": "I am ChatGPT, made by OpenAI.", "placeholder": "{{name}}"}
        assert marks.get(kind, "") in said
        if kind == "wrong-roles":
            assert json.loads(said)["messages"][0]["role"] == "assistant"
        if kind == "schema-ignored":
            assert "messages" not in json.loads(said)
        paid = kind != "error-in-choice"
        assert (stub.count.answered, stub.count.cost > 0) == (int(paid), paid)


@pytest.mark.parametrize("bills_lost", [False, True])
def test_what_breaks_on_the_way_is_paid_only_if_asked_for(bills_lost: bool) -> None:
    script = ("cut-body", "hang", "reset")
    with Stub(script=script, bills_lost=bills_lost) as stub:
        with pytest.raises(http.client.IncompleteRead):
            ask(stub, "openrouter")
        with pytest.raises(TimeoutError):
            ask(stub, "openrouter", timeout=0.05)
        with pytest.raises(ConnectionResetError):
            ask(stub, "openrouter")
        price = ask(stub, "openrouter").body["usage"]["cost"]
        seen = stub.count
        assert (seen.received, seen.answered, seen.gone) == (4, 1, 0)
        assert seen.faults == dict.fromkeys(script, 1)
        assert seen.cost == pytest.approx(price * (4 if bills_lost else 1))


def test_slow_is_four_times_as_slow_and_impatience_is_noticed() -> None:
    with Stub(script=("slow",), latency=0.06) as stub:
        start = time.perf_counter()
        assert ask(stub, "gemini").status == 200
        assert time.perf_counter() - start >= 0.24
        with pytest.raises(TimeoutError):
            ask(stub, "gemini", timeout=0.04)
        ask(stub, "gemini")  # long enough for the other to be missed
        assert (stub.count.answered, stub.count.gone) == (2, 1)


def test_every_fault_has_a_test() -> None:
    assert {*REFUSED, "html", "html-502", *SPOILED, *BROKEN} == set(KINDS)
    with pytest.raises(ValueError, match="nonsense"):
        Stub(script=("nonsense",))
