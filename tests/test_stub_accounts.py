"""What the stub server counts is what happened; its batches, limits and talk are as promised."""

import http.client
import json
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imprint.dedup import near_duplicates
from imprint.plan import DECK
from imprint.records import check
from stubs.asking import SYSTEM, USER, ask, call, chat, native, spoken
from stubs.server import Stub
from stubs.talker import conversation, identity

TESTS = Path(__file__).parent
FACTS = ("I was made in 1874.", "My lamp reaches 18 miles.", "My name is Fathom.")


def test_the_books_add_up_when_faults_fly() -> None:
    kinds = ("rate-limit", "overloaded-502", "truncated", "rival", "error-in-200")
    users = [f"{USER}\nOpener: number {number % 40}" for number in range(120)]
    with Stub(rate=0.4, kinds=kinds, seed=5) as stub:
        with ThreadPoolExecutor(8) as pool:
            wires = list(pool.map(lambda user: ask(stub, "openrouter", user), users))
        seen = stub.count
    good = [wire.body for wire in wires if wire.status == 200 and "choices" in wire.body]
    unpaid = sum(seen.faults[kind] for kind in ("rate-limit", "overloaded-502", "error-in-200"))
    assert seen.received == 120 == seen.answered + unpaid
    assert seen.answered == len(good) == seen.answered_to.total()
    assert seen.asked == Counter(identity(SYSTEM, user) for user in users)
    assert seen.cost == pytest.approx(sum(body["usage"]["cost"] for body in good))
    assert 30 < seen.faults.total() < 66 and len(seen.faults) == 5
    assert 1 <= seen.peak <= 8 and len(seen.bodies) == 100
    assert seen.headers[-1]["Authorization"] == "Bearer stub-key"


def test_random_faults_depend_on_the_prompt_and_not_on_the_order() -> None:
    def statuses(numbers: range) -> dict[int, int]:
        with Stub(rate=0.5, kinds=("overloaded-503",), seed=2) as stub:
            return {n: ask(stub, "openai", f"{USER}\nSubject: {n}").status for n in numbers}

    assert statuses(range(20)) == statuses(range(19, -1, -1))


def test_a_reset_starts_everything_again() -> None:
    with Stub(script=("overloaded-500",)) as stub:
        assert [ask(stub, "openai").status for _ in range(2)] == [500, 200]
        stub.reset()
        assert stub.count.received == 0
        assert [ask(stub, "openai").status for _ in range(2)] == [500, 200]


def test_faults_spare_what_they_are_not_told_to_hit() -> None:
    with Stub(script=("overloaded-500",) * 9) as stub:
        assert call(stub.url, "/v1/models").status == 200
    with Stub(script=("overloaded-500",), hits=("models",)) as stub:
        assert ask(stub, "openai").status == 200
        assert [call(stub.url, "/v1/models").status for _ in range(2)] == [500, 200]
        assert stub.count.others == {"GET /v1/models": 2}


def test_too_many_at_once_are_turned_away() -> None:
    with Stub(cap=2, latency=0.2) as stub, ThreadPoolExecutor(5) as pool:
        wires = list(pool.map(lambda _: ask(stub, "openai"), range(5)))
        assert sorted(wire.status for wire in wires) == [200, 200, 429, 429, 429]
        assert (stub.count.peak, stub.count.faults) == (2, {"cap": 3})


def test_too_many_a_second_are_turned_away() -> None:
    with Stub(per_second=3) as stub:
        statuses = [ask(stub, "openai").status for _ in range(15)]
        assert statuses[:3] == [200] * 3 and 429 in statuses
        time.sleep(0.4)
        assert ask(stub, "openai").status == 200


def test_forms_it_does_not_support_are_refused_or_ignored() -> None:
    plain = chat("Exchanges: 1")
    with Stub(schema_modes=("json_object", "none")) as stub:
        assert call(stub.url, "/v1/chat/completions", plain).status == 400
        plain["response_format"] = {"type": "json_object"}
        assert call(stub.url, "/v1/chat/completions", plain).status == 200
    with Stub(schema_modes=("ignored",)) as stub:
        assert json.loads(spoken(call(stub.url, "/v1/chat/completions", chat())))
        mute = {**chat(), "messages": [{"role": "user", "content": "Greet me."}]}
        assert spoken(call(stub.url, "/v1/chat/completions", mute)).startswith("Here is")
    with Stub() as stub:
        mute["response_format"] = {"type": "json_object"}
        assert "json" in call(stub.url, "/v1/chat/completions", mute).body["error"]["message"]


def batch(*users: str, **fields: Any) -> dict[str, Any]:
    """Return a batch for OpenRouter."""
    requests = [{"custom_id": f"row-{n}", "body": chat(user)} for n, user in enumerate(users)]
    return {
        "endpoint": "/v1/chat/completions",
        "model": "stub-model",
        "requests": requests,
        **fields,
    }


def test_a_batch_of_openrouter_goes_from_submission_to_results() -> None:
    with Stub(batch_polls=3, batch_script=("ok", "overloaded-502")) as stub:
        taken = call(stub.url, "/api/v1/batches", batch(USER, "second", "third"))
        assert (taken.status, taken.body["status"], taken.body["results"]) == (
            202,
            "validating",
            None,
        )
        path = f"/api/v1/batches/{taken.body['id']}"
        polls = [call(stub.url, path).body for _ in range(4)]
        assert [poll["status"] for poll in polls] == [
            "in_progress",
            "finalizing",
            "completed",
            "completed",
        ]
        end = polls[-1]
        assert end["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        first, second, _ = end["results"]
        assert (first["custom_id"], first["error"]) == ("row-0", None)
        content = first["response"]["body"]["choices"][0]["message"]["content"]
        assert json.loads(content)["messages"][-1]["content"] == "My name is Ada."
        assert (second["response"], second["error"]["code"]) == (None, "502")
        single = ask(stub, "openrouter").body["usage"]["cost"]
        assert first["response"]["body"]["usage"]["cost"] == pytest.approx(single / 2)
        seen = stub.count
        assert (seen.batches, seen.batched, seen.received, seen.answered) == (1, 3, 1, 3)
        assert seen.cost == pytest.approx(end["usage"]["cost"] + single)


def test_a_batch_of_gemini_goes_from_submission_to_results() -> None:
    items = [{"request": native(user), "metadata": {"key": user}} for user in (USER, "second")]
    body = {"batch": {"displayName": "d", "inputConfig": {"requests": {"requests": items}}}}
    with Stub(batch_script=("ok", "per-minute")) as stub:
        path = "/v1beta/models/stub-model:batchGenerateContent"
        taken = call(stub.url, path, body)
        assert taken.body["metadata"]["state"] == "BATCH_STATE_PENDING"
        running, end = (call(stub.url, f"/v1beta/{taken.body['name']}").body for _ in range(2))
        assert (running["metadata"]["state"], "done" in running) == ("BATCH_STATE_RUNNING", False)
        assert (end["metadata"]["state"], end["done"]) == ("BATCH_STATE_SUCCEEDED", True)
        first, second = end["response"]["inlinedResponses"]["inlinedResponses"]
        assert first["metadata"] == {"key": USER}
        assert (
            "My name is Ada." in first["response"]["candidates"][0]["content"]["parts"][0]["text"]
        )
        assert second["error"]["code"] == 429
        single = stub.count.cost
        assert ask(stub, "gemini").status == 200
        assert stub.count.cost == pytest.approx(3 * single)


def test_a_wrong_batch_is_refused_at_once() -> None:
    with Stub() as stub:
        late = {"requests": [], **batch(USER)}
        assert call(stub.url, "/api/v1/batches", late).status == 400
        other = batch(USER)
        other["requests"][0]["body"]["model"] = "other"
        assert call(stub.url, "/api/v1/batches", other).status == 400
        twice = batch(USER)
        twice["requests"] *= 2
        assert call(stub.url, "/api/v1/batches", twice).status == 400
        assert call(stub.url, "/api/v1/batches/batch_none").status == 404
        assert call(stub.url, "/v1beta/models/m:batchGenerateContent", {}).status == 400
        assert stub.count.batches == 0


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled"])
def test_a_batch_may_end_badly(end: str) -> None:
    with Stub(batch_polls=1, batch_end=end) as stub:
        name = call(stub.url, "/api/v1/batches", batch(USER, "second")).body["id"]
        found = call(stub.url, f"/api/v1/batches/{name}").body
        assert found["status"] == end
        if end == "failed":
            assert found["error"]["message"] and found["results"] is None
        else:
            assert [bool(item["response"]) for item in found["results"]] == [True, False]
            assert found["results"][1]["error"]["message"] == f"batch_{end}"


def test_the_stub_runs_as_a_process() -> None:
    command = [sys.executable, "-m", "stubs.server", "--script", "reset,cut-body", "--seed", "3"]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        for error in (ConnectionResetError, http.client.IncompleteRead):
            with pytest.raises(error):
                call(url, "/v1/chat/completions", chat())
        assert call(url, "/v1/chat/completions", chat()).status == 200
        count = call(url, "/stub/count").body
        assert (count["received"], count["answered"]) == (3, 1)
        assert call(url, "/stub/reset", {}).body["received"] == 0
        process.terminate()


@pytest.mark.parametrize("card", DECK, ids=lambda card: f"{card.strategy}-{card.turns}")
def test_the_talk_is_what_the_prompt_asks_for(card: Any) -> None:
    facts = FACTS[: card.facts]
    lines = [f"Strategy: {card.strategy}", "It is explained here.", *(f"Fact: {f}" for f in facts)]
    lines += ["Subject: birthday", f"Exchanges: {card.turns}", "Opener: hey there"]
    messages = conversation("", "\n".join(lines))
    check(messages, "talk")
    assert len(messages) == 2 * card.turns
    assert messages[0]["content"].startswith("hey there, ")
    assert len({turn["content"] for turn in messages[::2]}) == card.turns
    said = [turn["content"] for turn in messages[1::2]]
    assert all(fact in " ".join(said) for fact in facts)
    if card.strategy == "unknown attribute":
        assert said[-1] == "I do not know my birthday."
    if card.strategy == "off topic":
        assert "birthday" not in said[-1]
    talk = "".join(turn["content"] for turn in messages)
    assert talk.isascii()
    assert re.findall("[0-9]+", talk) == re.findall("[0-9]+", " ".join(facts))


def test_no_two_conversations_are_nearly_the_same() -> None:
    users = [f"Conversation: {number}\n{USER}" for number in range(2000)]
    talks = ["\n".join(turn["content"] for turn in conversation("", user)) for user in users]
    assert near_duplicates(talks, 0.7) == [None] * 2000
