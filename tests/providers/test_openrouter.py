import json
import time
from typing import Any

import pytest

from imprint.errors import AnswerLost, ConfigError, ProviderBusy, ProviderError
from imprint.providers import Reply, find, prompting
from imprint.providers.openrouter import OpenRouter
from imprint.settings import Provision
from providers.chat_kit import ANSWER, KEY, ROW, WHO, answer, canned, request, using
from stubs.server import Stub


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)


def body(mode: Any = "json_schema", **provision: Any) -> dict[str, Any]:
    provider = OpenRouter(WHO, Provision(**provision))
    provider.mode = mode
    return provider.body(request(provider))


def test_it_comes_through_the_door() -> None:
    assert find("openrouter") is OpenRouter
    assert OpenRouter(WHO, Provision()).terms is None


def test_the_body_is_exactly_this() -> None:
    assert body() == {
        "model": "qwen/qwen3-235b-a22b-2507",
        "messages": [
            {"role": "system", "content": "Be Ada."},
            {"role": "user", "content": "Who?"},
        ],
        "max_tokens": 340,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "conversation",
                "strict": True,
                "schema": prompting.schema(),
            },
        },
        "provider": {"require_parameters": True, "enforce_distillable_text": True},
    }


@pytest.mark.parametrize(
    ("mode", "provision", "route"),
    [
        ("json_object", {"distillable": False}, {"require_parameters": True}),
        ("prompt", {}, {"enforce_distillable_text": True}),
        ("prompt", {"distillable": False}, None),
        (
            "prompt",
            {"distillable": False, "upstream": ["deepinfra"]},
            {"only": ["deepinfra"], "allow_fallbacks": False},
        ),
    ],
    ids=str,
)
def test_the_settings_say_who_may_answer(
    mode: str, provision: dict[str, Any], route: dict[str, Any] | None
) -> None:
    assert body(mode, **provision).get("provider") == route


def test_it_shows_its_key_and_its_name() -> None:
    with Stub() as stub:
        answer(OpenRouter, stub.base("openrouter"))
        (seen,) = stub.count.headers
    assert (seen["Authorization"], seen["X-Title"]) == (f"Bearer {KEY}", "imprint")


def test_a_key_is_needed_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENROUTER_API_KEY")
    with pytest.raises(ConfigError, match="OPENROUTER_API_KEY is not set"):
        OpenRouter(WHO, Provision(base_url="http://localhost:8000/v1"))


def test_an_answer_says_what_it_cost() -> None:
    data = {
        "model": "qwen/qwen3-235b-a22b-2507",
        "choices": [{"message": {"content": json.dumps(ANSWER)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 900, "completion_tokens": 70, "cost": 0.00021},
    }
    assert canned(OpenRouter, 200, data) == Reply(
        messages=ANSWER["messages"],
        model="qwen/qwen3-235b-a22b-2507",
        usage={"input": 900, "output": 70},
        cost_usd=0.00021,
    )


@pytest.mark.parametrize(
    ("fault", "flaw"),
    [
        ("truncated", "truncated"),
        ("content-filter", "blocked"),
        ("refusal", "refused"),
        ("not-json", "malformed"),
        ("schema-ignored", "malformed"),
    ],
)
def test_a_useless_answer_is_a_flaw_and_to_be_paid(fault: str, flaw: str) -> None:
    with Stub(script=(fault,)) as stub:
        reply = answer(OpenRouter, stub.base("openrouter"))
        assert (reply.flaw, reply.messages) == (flaw, [])
        assert reply.cost_usd == pytest.approx(stub.count.cost) and reply.cost_usd > 0


def test_flagged_input_is_a_flaw_that_costs_nothing() -> None:
    with Stub(script=("blocked-prompt",)) as stub:
        reply = answer(OpenRouter, stub.base("openrouter"))
    assert (reply.flaw, reply.cost_usd) == ("blocked", None)


def test_another_model_that_answers_is_named() -> None:
    with Stub(script=("rerouted",)) as stub:
        reply = answer(OpenRouter, stub.base("openrouter"))
    assert reply.model == "qwen/qwen3-235b-a22b-2507-substitute"


@pytest.mark.parametrize(
    ("fault", "wait", "limit"),
    [
        ("rate-limit", 3.0, True),
        ("rate-limit-bare", None, True),
        ("in-flight-budget", 3.0, True),
        ("overloaded-502", None, False),
        ("error-in-200", None, False),
        ("error-in-choice", None, False),
    ],
)
def test_what_may_get_better_says_when(fault: str, wait: float | None, limit: bool) -> None:
    with Stub(script=(fault,), retry_after=3.0) as stub, pytest.raises(ProviderBusy) as error:
        answer(OpenRouter, stub.base("openrouter"))
    assert (error.value.wait_s, error.value.limit) == (wait, limit)


def test_a_limit_of_the_minute_says_when_it_ends() -> None:
    with Stub(script=("per-minute",), retry_after=30) as stub, pytest.raises(ProviderBusy) as error:
        answer(OpenRouter, stub.base("openrouter"))
    assert error.value.wait_s == pytest.approx(30, abs=3) and error.value.limit


def test_the_end_of_a_limit_may_be_in_the_body() -> None:
    headers = {"X-RateLimit-Reset": str(int(1000 * (time.time() + 30)))}
    said = {"error": {"code": 429, "message": "-", "metadata": {"headers": headers}}}
    with pytest.raises(ProviderBusy) as error:
        canned(OpenRouter, 429, said)
    assert error.value.wait_s == pytest.approx(30, abs=3)


def test_the_end_of_the_day_s_quota_ends_the_run_with_a_date() -> None:
    said = "day's quota is used up.*resets at .*kept.*same command"
    with Stub(script=("per-day",)) as stub, pytest.raises(ProviderError, match=said) as error:
        answer(OpenRouter, stub.base("openrouter"))
    assert not isinstance(error.value, ProviderBusy)


@pytest.mark.parametrize(
    ("status", "error", "what"),
    [
        (401, {"message": "No auth"}, "OPENROUTER_API_KEY"),
        (403, {"message": "Key limit", "metadata": {}}, "OPENROUTER_API_KEY"),
        (402, {"message": "-", "metadata": {"limit_source": "account"}}, "Add credit"),
        (404, {"message": "No endpoints found"}, r"openrouter\.ai/models.*distillable"),
        (400, {"message": "a/b is not a valid model ID"}, "provider_model"),
    ],
    ids=str,
)
def test_what_will_not_get_better_is_an_error_with_a_remedy(
    status: int, error: dict[str, Any], what: str
) -> None:
    with pytest.raises(ProviderError, match=what) as raised:
        canned(OpenRouter, status, {"error": {"code": status, **error}})
    assert not isinstance(raised.value, ProviderBusy | AnswerLost)


@pytest.mark.parametrize(
    ("modes", "found"),
    [
        (("json_schema", "none"), "json_schema"),
        (("json_object", "none"), "json_object"),
        (("none", "ignored"), "prompt"),
    ],
    ids=str,
)
def test_the_probe_finds_a_mode_and_says_what_it_cost(modes: tuple[str, ...], found: str) -> None:
    async def task(provider: OpenRouter) -> Any:
        return await provider.probe(None)

    with Stub(schema_modes=modes) as stub:
        probe = using(OpenRouter, task, base_url=stub.base("openrouter"))
        assert probe.found == found
        assert probe.cost_usd == pytest.approx(stub.count.cost) and probe.cost_usd > 0


def test_a_batch_can_read_what_it_was_answered() -> None:
    provider = OpenRouter(WHO, Provision())
    asked = provider.request(ROW)
    failed = {"error": {"code": 400, "message": "No."}}
    assert provider.read(failed, asked).flaw == "refused request"
    choice = {"message": {"content": json.dumps(ANSWER)}, "finish_reason": "stop"}
    assert provider.read({"choices": [choice]}, asked).messages == ANSWER["messages"]
