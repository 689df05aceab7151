import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from imprint.errors import AnswerLost, ConfigError, ProviderBusy, ProviderError
from imprint.providers import Reply, find, prompting
from imprint.providers.openai import OpenAI
from imprint.settings import Provision
from providers.chat_kit import ANSWER, KEY, WHO, Canned, answer, canned, request
from stubs.server import Stub


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def body(mode: Any = "json_schema", **provision: Any) -> dict[str, Any]:
    provider = OpenAI(WHO, Provision(**provision))
    provider.mode = mode
    return provider.body(request(provider))


def completion(content: object = None, **choice: Any) -> dict[str, Any]:
    text = json.dumps(ANSWER) if content is None else content
    message = {"role": "assistant", "content": text, "refusal": choice.pop("refusal", None)}
    return {
        "model": "gpt-4.1-mini-2025-04-14",
        "choices": [{"message": message, "finish_reason": "stop", **choice}],
        "usage": {
            "prompt_tokens": 900,
            "completion_tokens": 70,
            "prompt_tokens_details": {"cached_tokens": 512},
        },
    }


USAGE = {"input": 900, "output": 70, "cached": 512}


def test_it_comes_through_the_door() -> None:
    assert find("openai") is OpenAI


def test_the_body_is_exactly_this() -> None:
    assert body() == {
        "model": "gpt-4.1-mini",
        "messages": [
            {"role": "system", "content": "Be Ada."},
            {"role": "user", "content": "Who?"},
        ],
        "max_completion_tokens": 340,
        "seed": 6,  # 31 bits of the row's seed, plus 1 for the first ask
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "conversation",
                "strict": True,
                "schema": prompting.schema(),
            },
        },
    }


def test_the_other_modes_ask_for_less() -> None:
    assert body("json_object")["response_format"] == {"type": "json_object"}
    assert "response_format" not in body("prompt")


def test_other_servers_know_an_older_name_for_the_length() -> None:
    other = body(base_url="http://localhost:8000/v1")
    assert other["max_tokens"] == 340 and "max_completion_tokens" not in other


def test_only_at_openai_its_terms_hold_and_a_key_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert OpenAI(WHO, Provision()).terms
    assert OpenAI(WHO, Provision(base_url="http://localhost:8000/v1")).terms is None
    monkeypatch.delenv("OPENAI_API_KEY")
    OpenAI(WHO, Provision(base_url="http://localhost:8000/v1"))
    for url in (None, "https://api.openai.com/v1"):
        with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
            OpenAI(WHO, Provision(base_url=url))


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server = Canned(200, completion())
    asyncio.run(server.serve(OpenAI, "/v1", "json_schema"))
    assert b"authorization" not in server.seen[0].lower()


def test_an_address_that_is_not_http_is_refused() -> None:
    with pytest.raises(ValidationError, match="base_url"):
        Provision(base_url="ftp://host/v1")


def test_a_key_that_the_server_repeats_is_not_shown() -> None:
    said = {"error": {"message": f"Incorrect API key {KEY} given.", "code": "invalid_api_key"}}
    with pytest.raises(ProviderError, match=r"Incorrect API key \[key\]") as error:
        canned(OpenAI, 401, said)
    assert KEY not in f"{error.value} {error.value!r}"


def test_an_answer_becomes_a_conversation_with_its_usage() -> None:
    reply = canned(OpenAI, 200, completion())
    assert reply == Reply(
        messages=ANSWER["messages"], model="gpt-4.1-mini-2025-04-14", usage=USAGE, cost_usd=None
    )


def test_an_answer_from_the_stub_teaches_the_fact() -> None:
    with Stub() as stub:
        reply = answer(OpenAI, stub.base("openai"))
    assert reply.flaw is None and "My name is Ada." in reply.messages[1]["content"]


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (completion(finish_reason="length"), "truncated"),
        (completion(finish_reason="content_filter"), "blocked"),
        (completion(refusal="I cannot."), "refused"),
        (completion("Hello there."), "malformed"),
        (completion('{"messages": [{"role": "user", "content": "Who'), "malformed"),
        (completion('{"dialogue": []}'), "malformed"),
        (completion(""), "malformed"),
        (completion(["parts"]), "malformed"),
        ({**completion(), "choices": []}, "malformed"),
        (completion(error={"code": 502, "message": "-"}, finish_reason="error"), "broken off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_useless_answer_is_a_flaw_and_still_counted(data: dict[str, Any], flaw: str) -> None:
    reply = canned(OpenAI, 200, data)
    assert (reply.flaw, reply.messages, reply.usage) == (flaw, [], USAGE)


def test_the_finish_reason_counts_even_if_the_text_is_whole() -> None:
    assert canned(OpenAI, 200, completion(finish_reason="length")).flaw == "truncated"


def test_an_error_before_the_first_token_may_be_asked_again() -> None:
    data = completion(error={"code": 429, "message": "Slow down."}, finish_reason="error")
    with pytest.raises(ProviderBusy, match="Slow down") as error:
        canned(OpenAI, 200, {**data, "usage": {}})
    assert error.value.limit


@pytest.mark.parametrize(
    "data", [{"choices": ["text"]}, {"choices": [{"message": "text"}]}], ids=str
)
def test_an_answer_of_another_shape_is_lost(data: object) -> None:
    with pytest.raises(AnswerLost, match="dialect"):
        canned(OpenAI, 200, data)
