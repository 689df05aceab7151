import json
from typing import Any

import pytest

from imprint.errors import AnswerLost, ConfigError, ProviderBusy, ProviderError
from imprint.providers import Reply, find, prompting
from imprint.providers.gemini import Gemini
from imprint.settings import Provision
from providers.chat_kit import ANSWER, KEY, ROW, WHO, answer, canned, request, using
from stubs.server import Stub


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


def body(mode: Any = "json_schema", **provision: Any) -> dict[str, Any]:
    provider = Gemini(WHO, Provision(**provision))
    provider.mode = mode
    return provider.body(request(provider))


def generated(text: str = json.dumps(ANSWER), **candidate: Any) -> dict[str, Any]:
    parts = [{"text": "Let me think.", "thought": True}, {"text": text[:9]}, {"text": text[9:]}]
    return {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP", **candidate}],
        "usageMetadata": {
            "promptTokenCount": 900,
            "candidatesTokenCount": 70,
            "thoughtsTokenCount": 30,
            "cachedContentTokenCount": 512,
        },
        "modelVersion": "gemini-3.1-flash-lite-001",
    }


USAGE = {"input": 900, "output": 100, "cached": 512}


def test_it_comes_through_the_door() -> None:
    assert find("gemini") is Gemini
    assert Gemini(WHO, Provision()).terms


def test_the_body_is_exactly_this() -> None:
    assert body() == {
        "systemInstruction": {"parts": [{"text": "Be Ada."}]},
        "contents": [{"role": "user", "parts": [{"text": "Who?"}]}],
        "generationConfig": {
            "maxOutputTokens": 340,
            "seed": 6,  # 31 bits of the row's seed, plus 1 for the first ask
            "responseMimeType": "application/json",
            "responseJsonSchema": prompting.schema(),
        },
    }


def test_the_other_modes_ask_for_less() -> None:
    assert body("json_object")["generationConfig"] == {
        "maxOutputTokens": 340,
        "seed": 6,
        "responseMimeType": "application/json",
    }
    assert body("prompt")["generationConfig"] == {"maxOutputTokens": 340, "seed": 6}


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("gemini-2.5-flash", {"thinkingBudget": 0}),
        ("models/gemini-2.5-flash-lite", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", None),
        ("gemini-3.1-flash-lite", None),
    ],
)
def test_thinking_is_off_where_it_can_be(model: str, config: object) -> None:
    assert body(provider_model=model)["generationConfig"].get("thinkingConfig") == config


def test_the_key_is_in_a_header_and_the_model_in_the_path() -> None:
    with Stub() as stub:
        reply = answer(Gemini, stub.base("gemini"), provider_model="models/gemini-x")
        (seen,) = stub.count.headers
    assert seen["x-goog-api-key"] == KEY and "Authorization" not in seen
    assert reply.model == "gemini-x" and reply.flaw is None


def test_without_a_key_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    with pytest.raises(ConfigError, match="GEMINI_API_KEY is not set"):
        Gemini(WHO, Provision())


def test_an_answer_becomes_a_conversation_and_thoughts_are_output() -> None:
    assert canned(Gemini, 200, generated(), path="") == Reply(
        messages=ANSWER["messages"], model="gemini-3.1-flash-lite-001", usage=USAGE
    )


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (generated(finishReason="MAX_TOKENS"), "truncated"),
        (generated(finishReason="SAFETY"), "blocked"),
        (generated(finishReason="PROHIBITED_CONTENT"), "blocked"),
        (generated(finishReason="BLOCKLIST"), "blocked"),
        (generated(finishReason="SPII"), "blocked"),
        (generated(finishReason="RECITATION", content=None), "recitation"),
        (generated(finishReason="LANGUAGE"), "language"),
        (generated(finishReason="OTHER"), "other"),
        (generated(finishReason="MALFORMED_FUNCTION_CALL"), "malformed function call"),
        (generated("Hello there."), "malformed"),
        (generated('{"messages": []'), "malformed"),
        (generated(content={}), "malformed"),
        ({**generated(), "candidates": []}, "malformed"),
        (
            {**generated(), "candidates": None, "promptFeedback": {"blockReason": "OTHER"}},
            "blocked",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_useless_answer_is_a_flaw_and_still_counted(data: dict[str, Any], flaw: str) -> None:
    reply = canned(Gemini, 200, data, path="")
    assert (reply.flaw, reply.messages, reply.usage) == (flaw, [], USAGE)


@pytest.mark.parametrize(
    ("fault", "wait", "limit"),
    [
        ("rate-limit", 3.0, True),
        ("rate-limit-bare", None, True),
        ("per-minute", 3.0, True),
        ("overloaded-503", None, False),
        ("error-in-200", None, False),
    ],
)
def test_what_may_get_better_says_when(fault: str, wait: float | None, limit: bool) -> None:
    with Stub(script=(fault,), retry_after=3.0) as stub, pytest.raises(ProviderBusy) as error:
        answer(Gemini, stub.base("gemini"))
    assert (error.value.wait_s, error.value.limit) == (wait, limit)


def test_the_end_of_the_day_s_quota_ends_the_run_whatever_wait_is_named() -> None:
    said = "day's quota is used up.*midnight Pacific time.*kept.*same command"
    with Stub(script=("per-day",)) as stub, pytest.raises(ProviderError, match=said) as error:
        answer(Gemini, stub.base("gemini"))
    assert not isinstance(error.value, ProviderBusy)


@pytest.mark.parametrize(
    ("status", "error", "what"),
    [
        (401, {"status": "UNAUTHENTICATED"}, "GEMINI_API_KEY"),
        (403, {"status": "PERMISSION_DENIED"}, "GEMINI_API_KEY"),
        (400, {"status": "FAILED_PRECONDITION"}, "a way to pay"),
        (404, {"status": "NOT_FOUND"}, r"provider_model.*ai\.google\.dev"),
    ],
    ids=str,
)
def test_what_will_not_get_better_is_an_error_with_a_remedy(
    status: int, error: dict[str, Any], what: str
) -> None:
    with pytest.raises(ProviderError, match=what) as raised:
        canned(Gemini, status, {"error": {"code": status, "message": "No.", **error}}, path="")
    assert not isinstance(raised.value, ProviderBusy | AnswerLost)


def test_a_wrong_key_is_named_though_the_status_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "wrong-key")
    with Stub() as stub, pytest.raises(ProviderError, match=r"400.*GEMINI_API_KEY"):
        answer(Gemini, stub.base("gemini"), mode=None)


def test_a_body_it_refuses_is_a_flaw() -> None:
    said = {"error": {"code": 400, "message": "Bad field.", "status": "INVALID_ARGUMENT"}}
    assert canned(Gemini, 400, said, path="").flaw == "refused request"


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        (("json_schema", "none"), "json_schema"),
        (("json_object", "none"), "json_object"),
        (("none",), "prompt"),
        (("none", "ignored"), "prompt"),
    ],
    ids=str,
)
def test_the_probe_finds_a_mode_and_answers_follow(modes: tuple[str, ...], found: str) -> None:
    async def task(provider: Gemini) -> Any:
        probe = await provider.probe(None)
        assert probe is not None and probe.found == found and probe.cost_usd is None
        return await provider.answer(provider.request(ROW))

    with Stub(schema_modes=modes) as stub:
        reply = using(Gemini, task, base_url=stub.base("gemini"))
    assert reply.flaw is None
