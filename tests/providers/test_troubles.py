from typing import Any

import pytest

from imprint.errors import AnswerLost, ProviderBusy, ProviderError
from imprint.providers.openai import OpenAI
from providers.chat_kit import KEY, answer, canned
from stubs.server import Stub


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def said(code: object, message: str = "No.") -> dict[str, Any]:
    return {"error": {"message": message, "type": "-", "code": code}}


@pytest.mark.parametrize(
    ("status", "data", "what"),
    [
        (401, said("invalid_api_key"), "answered 401 .*OPENAI_API_KEY"),
        (403, said(None), "answered 403 .*OPENAI_API_KEY"),
        (402, said(None), "Add credit.*same command"),
        (429, said("insufficient_quota"), "Add credit.*same command"),
        (404, said("model_not_found"), "provider_model .'gpt-4.1-mini'. and base_url.*models"),
        (404, {"detail": "Not Found"}, r"answered 404 \(Not Found\).*provider_model"),
        (410, "gone", "provider_model"),
        (405, said(None), "Check base_url"),
        (307, "", "Check base_url"),
        (429, said(None, "Limit. Please try again in 8h0m0s."), "day's quota.*resets at.*UTC"),
    ],
    ids=str,
)
def test_what_will_not_get_better_is_an_error_with_a_remedy(
    status: int, data: object, what: str
) -> None:
    with pytest.raises(ProviderError, match=what) as error:
        canned(OpenAI, status, data)
    assert not isinstance(error.value, ProviderBusy | AnswerLost)


@pytest.mark.parametrize(
    ("status", "data", "headers", "wait", "limit"),
    [
        (429, said("rate_limit_exceeded"), {}, None, True),
        (429, said(None), {"Retry-After": "7"}, 7.0, True),
        (429, said(None), {"Retry-After-Ms": "250"}, 0.25, True),
        (429, said(None, "Please try again in 1m2.5s."), {}, 62.5, True),
        (429, said(None, "Please try again in 300ms."), {}, 0.3, True),
        (408, said(None), {}, None, False),
        (409, said(None), {}, None, False),
        (425, said(None), {}, None, False),
        (500, "oops", {}, None, False),
        (502, "<html>Bad gateway</html>", {}, None, False),
        (503, said(None), {"Retry-After": "3"}, 3.0, False),
        (529, said(None), {}, None, False),
        (200, said(None), {}, None, False),
        (200, said("server_error"), {}, None, False),
        (200, said(429), {"Retry-After": "2"}, 2.0, True),
        (200, {"error": "out of memory"}, {}, None, False),
    ],
    ids=str,
)
def test_what_may_get_better_says_when(
    status: int, data: object, headers: dict[str, str], wait: float | None, limit: bool
) -> None:
    with pytest.raises(ProviderBusy, match="answered") as error:
        canned(OpenAI, status, data, headers)
    assert (error.value.wait_s, error.value.limit) == (wait, limit)


@pytest.mark.parametrize(
    ("status", "data", "flaw"),
    [
        (400, said(None), "refused request"),
        (413, "too large", "refused request"),
        (422, {"detail": [{"loc": ["body"]}]}, "refused request"),
        (400, said("content_filter"), "blocked"),
        (400, said("content_policy_violation"), "blocked"),
    ],
    ids=str,
)
def test_a_refused_request_is_a_flaw_and_the_reason_is_logged_once(
    status: int, data: object, flaw: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply = canned(OpenAI, status, data)
    assert (reply.flaw, reply.usage, reply.cost_usd) == (flaw, {}, None)
    assert caplog.text.count(f"answered {status}") == 1


def test_a_page_in_the_middle_of_a_run_is_a_lost_answer() -> None:
    with Stub(script=("html",)) as stub, pytest.raises(AnswerLost, match="not a JSON object"):
        answer(OpenAI, stub.base("openai"))
