import json
from typing import Any

import pytest

from imprint.errors import AnswerLost, ProviderBusy, ProviderError
from imprint.providers import Batch, Reply, Request
from imprint.providers.gemini import Gemini
from providers.batch_kit import Seen, submitted, told
from providers.chat_kit import ANSWER, KEY

TAKEN = (200, {"name": "batches/b1", "metadata": {"state": "BATCH_STATE_PENDING"}})


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", KEY)


def poll(shown: Any, status: int = 200) -> tuple[Batch, list[str], list[Seen]]:
    """Return how a batch of three is, given what the server shows, or makes of the keys."""
    keys: list[str] = []
    answers: list[tuple[int, object]] = []

    async def task(provider: Gemini, requests: list[Request]) -> Batch:
        keys.extend(request.key for request in requests)
        answers.append((status, shown(keys) if callable(shown) else shown))
        return await provider.poll("batches/b1", {request.key: request for request in requests})

    batch, seen = told(Gemini, answers, task)
    return batch, keys, seen


def generated(**candidate: Any) -> dict[str, Any]:
    content = {"parts": [{"text": json.dumps(ANSWER)}]}
    return {
        "candidates": [{"content": content, "finishReason": "STOP", **candidate}],
        "usageMetadata": {"promptTokenCount": 900, "candidatesTokenCount": 70},
        "modelVersion": "gemini-3.1-flash-lite-001",
    }


def line(key: str, **result: Any) -> dict[str, Any]:
    return {"metadata": {"key": key}, **result}


def operation(state: str, **fields: Any) -> dict[str, Any]:
    return {"name": "batches/b1", "metadata": {"state": f"BATCH_STATE_{state}"}, **fields}


def test_a_batch_holds_its_requests_with_their_keys() -> None:
    name, ((method, path, body),) = told(Gemini, [TAKEN], submitted, provider_model="models/g-1")
    assert (name, method, path) == ("batches/b1", "POST", "/v1beta/models/g-1:batchGenerateContent")
    batch = body["batch"]
    assert batch["displayName"].startswith("imprint ")
    items = batch["inputConfig"]["requests"]["requests"]
    assert len({item["metadata"]["key"] for item in items}) == 3
    assert {tuple(sorted(item["request"])) for item in items} == {
        ("contents", "generationConfig", "systemInstruction")
    }


def test_the_shown_name_tells_batches_apart_and_is_the_same_for_the_same() -> None:
    shown = [
        told(Gemini, [TAKEN], submitted, provider_model=model)[1][0].body["batch"]["displayName"]
        for model in ("a", "a", "b")
    ]
    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize(
    ("status", "error", "kind", "said"),
    [
        (404, {"status": "NOT_FOUND"}, ProviderError, "provider_model"),
        (400, {"status": "FAILED_PRECONDITION"}, ProviderError, "a way to pay"),
        (429, {"status": "RESOURCE_EXHAUSTED"}, ProviderBusy, "429"),
        (503, {"status": "UNAVAILABLE"}, ProviderBusy, "503"),
    ],
    ids=str,
)
def test_a_batch_that_is_not_taken_is_an_error_with_a_remedy(
    status: int, error: dict[str, Any], kind: type[ProviderError], said: str
) -> None:
    refusal = (status, {"error": {"code": status, "message": "No.", **error}})
    with pytest.raises(kind, match=said) as raised:
        told(Gemini, [refusal], submitted)
    assert isinstance(raised.value, ProviderBusy) == (kind is ProviderBusy)


def test_a_batch_without_a_name_may_be_taken_all_the_same() -> None:
    with pytest.raises(AnswerLost, match="a batch in a dialect not its own"):
        told(Gemini, [(200, {})], submitted)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_batch_that_goes_on_has_no_results(state: str) -> None:
    batch, _, ((method, path, _),) = poll(operation(state))
    assert batch == Batch(state.lower())
    assert (method, path) == ("GET", "/v1beta/batches/b1")


@pytest.mark.parametrize("place", ["response", "metadata", "flat"])
def test_results_are_found_wherever_they_lie(place: str) -> None:
    def shown(keys: list[str]) -> dict[str, Any]:
        found = [line(keys[0], response=generated()), line("of another shard", response={})]
        nested = {"inlinedResponses": {"inlinedResponses": found}}
        if place == "response":
            return operation("SUCCEEDED", done=True, response=nested)
        if place == "flat":
            return operation("SUCCEEDED", done=True, response={"inlinedResponses": found})
        metadata = {"state": "JOB_STATE_SUCCEEDED", "output": nested}
        return {"name": "batches/b1", "metadata": metadata}

    batch, keys, _ = poll(shown)
    assert (batch.state, batch.reason) == ("succeeded", "")
    assert batch.results == {
        keys[0]: Reply(
            messages=ANSWER["messages"],
            model="gemini-3.1-flash-lite-001",
            usage={"input": 900, "output": 70},
        )
    }


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        ({"error": {"code": 3, "message": "Bad."}}, "refused request"),
        ({"error": {"code": 400, "message": "Bad."}}, "refused request"),
        ({"error": {"code": 8, "message": "Exhausted."}}, ProviderBusy),
        ({"error": {"code": 13, "message": "Internal."}}, ProviderBusy),
        ({"error": {"code": 16, "message": "Who?"}}, ProviderError),
        ({}, ProviderBusy),
        ({"response": "text"}, AnswerLost),
        ({"response": generated(finishReason="SAFETY")}, "blocked"),
    ],
    ids=str,
)
def test_each_kind_of_result_means_what_it_means_alone(result: dict[str, Any], kind: Any) -> None:
    def shown(keys: list[str]) -> dict[str, Any]:
        found = [line(keys[0], **result), line(keys[1], response=generated())]
        return operation("SUCCEEDED", response={"inlinedResponses": {"inlinedResponses": found}})

    batch, keys, _ = poll(shown)
    assert batch.results is not None
    found = batch.results[keys[0]]
    if isinstance(kind, str):
        assert isinstance(found, Reply) and found.flaw == kind
    else:
        assert type(found) is kind or (kind is AnswerLost and isinstance(found, kind))
    assert isinstance(batch.results[keys[1]], Reply), "one bad line does not spoil the others"


@pytest.mark.parametrize(
    ("shown", "batch"),
    [
        (
            operation("FAILED", done=True, error={"code": 13, "message": "It broke."}),
            Batch("failed", {}, "failed (It broke.)"),
        ),
        (operation("EXPIRED"), Batch("expired", {}, "expired")),
        (operation("CANCELLED", done=True), Batch("cancelled", {}, "cancelled")),
    ],
    ids=str,
)
def test_a_batch_that_ends_early_says_why(shown: dict[str, Any], batch: Batch) -> None:
    assert poll(shown)[0] == batch


def test_a_batch_that_is_gone_has_ended_without_results() -> None:
    gone = {"error": {"code": 404, "message": "No.", "status": "NOT_FOUND"}}
    assert poll(gone, status=404)[0] == Batch("not known any more", {})


def test_a_batch_in_an_odd_shape_is_looked_at_again() -> None:
    with pytest.raises(AnswerLost, match="dialect"):
        poll(operation("SUCCEEDED", response={"inlinedResponses": [5]}))
