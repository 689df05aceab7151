import json
from typing import Any

import pytest

from imprint.errors import AnswerLost, ProviderBusy, ProviderError
from imprint.providers import Batch, Reply, Request
from imprint.providers.openrouter import OpenRouter
from providers.batch_kit import Seen, submitted, told
from providers.chat_kit import ANSWER, KEY

TAKEN = (202, {"id": "batch_1", "status": "validating"})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)


def submit(*answers: tuple[int, object], **provision: Any) -> tuple[str, list[Seen]]:
    return told(OpenRouter, list(answers), submitted, under="/api/v1", **provision)


def poll(shown: Any, *before: tuple[int, object]) -> tuple[Batch, list[str], list[Seen]]:
    """Return how a batch of three is, given what the server shows, or makes of the keys."""
    keys: list[str] = []

    async def task(provider: OpenRouter, requests: list[Request]) -> Batch:
        keys.extend(request.key for request in requests)
        answers.append((200, shown(keys) if callable(shown) else shown))
        return await provider.poll("batch_1", {request.key: request for request in requests})

    answers = list(before)
    batch, seen = told(OpenRouter, answers, task, under="/api/v1")
    return batch, keys, seen


def completion(**fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": json.dumps(ANSWER)}
    usage = {"prompt_tokens": 900, "completion_tokens": 70, "cost": 0.00012}
    choices = [{"message": message, "finish_reason": "stop"}]
    return {"model": "a/b:batch", "choices": choices, "usage": usage, **fields}


def line(key: str, body: object = None, status: int = 200, error: object = None) -> dict[str, Any]:
    response = None if body is None else {"status_code": status, "body": body}
    return {"custom_id": key, "response": response, "error": error}


def test_a_batch_names_endpoint_and_model_first_and_its_requests_neither() -> None:
    name, ((method, path, body),) = submit(TAKEN, provider_model="a/b")
    assert (name, method, path) == ("batch_1", "POST", "/api/v1/batches")
    assert list(body) == ["endpoint", "model", "requests"]
    assert (body["endpoint"], body["model"]) == ("/v1/chat/completions", "a/b:batch")
    assert len({item["custom_id"] for item in body["requests"]}) == 3
    assert all(len(item["custom_id"]) == 64 for item in body["requests"]), "no more are allowed"
    assert {tuple(item["body"]) for item in body["requests"]} == {
        ("messages", "max_tokens", "response_format")
    }


def test_companies_are_chosen_for_the_whole_batch() -> None:
    _, ((_, _, body),) = submit(TAKEN, upstream=["novita"], provider_model="a/b:batch")
    assert list(body) == ["endpoint", "model", "provider", "requests"]
    assert body["provider"] == {"only": ["novita"], "allow_fallbacks": False}
    assert body["model"] == "a/b:batch"


def test_where_batches_are_still_in_their_beta_they_are_found_there() -> None:
    missing = (404, {"error": {"code": 404, "message": "Not found"}})
    name, seen = submit(missing, TAKEN)
    assert name == "batch_1"
    assert [asked.path for asked in seen] == ["/api/v1/batches", "/api/beta/batches"]
    batch, _, seen = poll({"id": "batch_1", "status": "in_progress"}, missing)
    assert batch == Batch("in_progress")
    assert [asked.path for asked in seen] == [
        "/api/v1/batches/batch_1",
        "/api/beta/batches/batch_1",
    ]


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        (400, "Model 'a/b' does not have a :batch endpoint.", ProviderError, "a variant :batch"),
        (401, "No auth.", ProviderError, "OPENROUTER_API_KEY"),
        (402, "No credits.", ProviderError, "Add credit"),
        (429, "Slow down.", ProviderBusy, "429"),
        (503, "Overloaded.", ProviderBusy, "503"),
    ],
)
def test_a_batch_that_is_not_taken_is_an_error_with_a_remedy(
    status: int, error: str, kind: type[ProviderError], said: str
) -> None:
    refusal = (status, {"error": {"code": status, "message": error}})
    with pytest.raises(kind, match=said) as raised:
        submit(refusal, refusal)
    assert isinstance(raised.value, ProviderBusy) == (kind is ProviderBusy)


def test_a_batch_without_a_name_may_be_taken_all_the_same() -> None:
    with pytest.raises(AnswerLost, match="a batch in a dialect not its own"):
        submit((202, {"status": "validating"}))


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_a_batch_that_goes_on_has_no_results(status: str) -> None:
    batch, _, ((method, path, _),) = poll({"id": "batch_1", "status": status, "results": None})
    assert batch == Batch(status)
    assert (method, path) == ("GET", "/api/v1/batches/batch_1")


def test_results_are_read_as_single_answers_are_and_errors_stay_apart() -> None:
    def shown(keys: list[str]) -> dict[str, Any]:
        results = [
            line(keys[1], error={"code": "500", "message": "Upstream."}),
            line(keys[0], completion()),
            line("of another shard", completion()),
        ]
        return {"status": "completed", "results": results, "error": None}

    batch, keys, _ = poll(shown)
    assert (batch.state, batch.reason) == ("completed", "")
    results = batch.results
    assert results is not None and set(results) == {keys[0], keys[1]}
    assert results[keys[0]] == Reply(
        messages=ANSWER["messages"],
        model="a/b",
        usage={"input": 900, "output": 70},
        cost_usd=0.00012,
    )
    assert isinstance(results[keys[1]], ProviderBusy)


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"body": {"error": {"message": "Bad."}}, "status": 400}, "refused request"),
        ({"body": '{"message": "Bad."}', "status": 400}, "refused request"),
        ({"error": {"code": "400", "message": "Bad."}}, "refused request"),
        ({"error": {"code": 402, "message": "Empty."}}, ProviderError),
        ({"body": {"error": {"message": "Slow."}}, "status": 429}, ProviderBusy),
        ({"error": "odd"}, ProviderBusy),
        ({}, ProviderBusy),
        ({"body": "text"}, AnswerLost),
        ({"body": {"choices": 5}}, AnswerLost),
        ({"body": {"choices": [{"finish_reason": "length"}]}}, "truncated"),
    ],
    ids=str,
)
def test_each_kind_of_result_means_what_it_means_alone(item: dict[str, Any], kind: Any) -> None:
    batch, keys, _ = poll(
        lambda keys: {
            "status": "completed",
            "results": [line(keys[0], **item), line(keys[1], completion())],
        }
    )
    assert batch.results is not None
    found = batch.results[keys[0]]
    if isinstance(kind, str):
        assert isinstance(found, Reply) and found.flaw == kind
    else:
        assert type(found) is kind or (kind is AnswerLost and isinstance(found, kind))
    assert isinstance(batch.results[keys[1]], Reply), "one bad line does not spoil the others"


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (
            {"status": "failed", "results": None, "error": {"message": "Too big."}},
            "failed (Too big.)",
        ),
        ({"status": "expired", "results": []}, "expired"),
        ({"status": "cancelled"}, "cancelled"),
    ],
)
def test_a_batch_that_ends_early_says_why(shown: dict[str, Any], reason: str) -> None:
    batch, _, _ = poll(shown)
    assert batch == Batch(str(shown["status"]), {}, reason)


@pytest.mark.parametrize("status", [404, 410])
def test_a_batch_that_is_gone_has_ended_without_results(status: int) -> None:
    gone = (status, {"error": {"code": status, "message": "No such batch."}})
    batch = told(OpenRouter, [gone, gone], _polled, under="/api/v1")[0]
    assert batch == Batch("not known any more", {})


@pytest.mark.parametrize("shown", [{}, {"status": "completed", "results": [5]}], ids=str)
def test_a_batch_in_an_odd_shape_is_looked_at_again(shown: dict[str, Any]) -> None:
    with pytest.raises(AnswerLost, match="dialect"):
        poll(shown)


def test_the_name_of_a_batch_cannot_lead_elsewhere() -> None:
    async def task(provider: OpenRouter, requests: list[Request]) -> Batch:
        return await provider.poll("../key?x", {})

    _, ((_, path, _),) = told(OpenRouter, [(200, {"status": "failed"})], task, under="/api/v1")
    assert path == "/api/v1/batches/../key?x", "one segment, as the server decodes it"


async def _polled(provider: OpenRouter, requests: list[Request]) -> Batch:
    return await provider.poll("batch_1", {request.key: request for request in requests})
