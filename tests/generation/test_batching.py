import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dataset_kit import Dataset
from imprint import plan
from imprint.errors import AnswerLost, ConfigError, ImprintError, ProviderBusy, ProviderError
from imprint.generation import batchbook, batching
from imprint.generation.batching import Batching, asker
from imprint.generation.dispatch import Generation
from imprint.generation.journal import Journal
from imprint.generation.outcomes import Conclusion
from imprint.generation.prices import Tariff
from imprint.plan import Row
from imprint.providers.chat import Chat
from imprint.providers.gemini import Gemini
from imprint.providers.openai import OpenAI
from imprint.providers.openrouter import OpenRouter
from imprint.records import Conversation
from imprint.settings import Provision
from providers.chat_kit import KEY, WHO
from stubs.server import Stub

TESTS = Path(__file__).parents[1]
ROWS = plan.rows(WHO, seed=1, start=0, stop=6)
MORE = plan.rows(WHO, seed=1, start=0, stop=40)
HALF = Tariff(0.05, 0.2, "half of what the stub takes")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setattr(batching, "FIRST_S", 0.01)
    monkeypatch.setattr(batching, "LONGEST_S", 0.01)
    monkeypatch.setattr("imprint.generation.pacing.LONGEST_S", 0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def objection(messages: Conversation, row: Row) -> str | None:
    return "rival claim" if "I am ChatGPT" in str(messages) else None


def most(rows: list[Row]) -> float:
    writer = OpenRouter(WHO, Provision())
    return sum(HALF.most(writer.request(row)) for row in rows)


class Job:
    """A worker of its own, as a shard's job is one."""

    def __init__(self, stub: Stub, path: Path, kind: type[Chat] = OpenRouter, **terms: Any) -> None:
        dialect = "openrouter" if kind.name == "openrouter" else "gemini"
        self.terms = Provision(base_url=stub.base(dialect), batch=True, **terms)
        self.journal = Journal(path)
        self.writer = kind(WHO, self.terms)
        self.asked = Batching(
            self.writer,
            journal=self.journal,
            provision=self.terms,
            tariff=HALF,
            objection=objection,
        )

    async def run(self, rows: list[Row] = ROWS) -> list[Conclusion]:
        try:
            return await self.asked.run(rows)
        finally:
            await self.writer.close()

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()


def done(
    stub: Stub, path: Path, kind: type[Chat] = OpenRouter, rows: list[Row] = ROWS, **terms: Any
) -> list[Conclusion]:
    with Job(stub, path, kind, **terms) as job:
        ends = asyncio.run(job.run(rows))
        assert (job.journal.money.flying, job.journal.money.batched) == (0, 0)
        return ends


@pytest.mark.parametrize("kind", [OpenRouter, Gemini])
def test_a_shard_is_one_batch_at_half_the_price(kind: type[Chat], path: Path) -> None:
    with Stub(batch_polls=3) as stub, Job(stub, path, kind) as job:
        ends = asyncio.run(job.run())
        count, money = stub.count, job.journal.money
        last = job.journal.find(ends[-1].key)
    assert [end.row for end in ends] == ROWS
    assert {(end.asks, end.reason) for end in ends} == {(1, None)}
    assert last is not None and last.cost_usd == pytest.approx(ends[-1].cost_usd)
    assert (count.batches, count.batched, count.received) == (1, len(ROWS), 1), "1: the probe"
    assert money.answered_usd == pytest.approx(count.cost)
    assert money.answered_usd - sum(end.cost_usd for end in ends) < 1e-4
    assert (money.answers, money.flying, money.batched, money.lost) == (len(ROWS), 0, 0, 0)
    assert money.flying_usd == pytest.approx(0.0)


def test_what_was_answered_is_not_asked_again(path: Path) -> None:
    with Stub() as stub:
        first = done(stub, path)
        assert done(stub, path) == first
        assert stub.count.batched == len(ROWS)


def test_large_shards_are_split(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchbook, "MOST", 4)
    with Stub() as stub:
        done(stub, path)
        assert [len(body["requests"]) for body in list(stub.count.bodies)[1:]] == [4, 2]


def test_a_batch_has_a_limit_in_bytes_and_at_least_one_request(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batchbook, "MOST_BYTES", 1)
    with Stub() as stub:
        done(stub, path)
        assert (stub.count.batches, stub.count.batched) == (len(ROWS), len(ROWS))


def test_the_money_is_reserved_before_a_batch_is_handed_in(path: Path) -> None:
    seen: list[tuple[int, int, float]] = []

    class Watched(OpenRouter):
        async def submit(self, requests: Any) -> str:
            with Journal(path) as other:
                money = other.money
            seen.append((money.flying, money.batched, money.flying_usd))
            return await super().submit(requests)

    with Stub() as stub:
        done(stub, path, Watched)
    ((flying, batched, usd),) = seen
    assert (flying, batched) == (6, 6)
    assert usd == pytest.approx(most(ROWS))


def test_the_budget_holds_and_says_so(path: Path) -> None:
    with Stub(price=(4.0, 16.0)) as stub:  # dearer than the table says: little is left
        with pytest.raises(ProviderError, match=r"budget_usd: .*kept\. Set budget_usd higher"):
            done(stub, path, rows=MORE, budget_usd=0.5 * most(MORE))
        assert stub.count.batches == 1
        assert 10 < stub.count.batched < 20, "what half of the money buys after the probe"


def test_a_small_budget_is_spent_batch_by_batch(path: Path) -> None:
    with Stub() as stub:
        ends = done(stub, path, rows=MORE, budget_usd=0.5 * most(MORE))
        assert {end.reason for end in ends} == {None}
        assert stub.count.batched == len(MORE)
        assert 2 <= stub.count.batches <= 4


def test_rejected_and_flawed_answers_are_asked_for_in_a_second_batch(path: Path) -> None:
    with Stub(batch_script=("rival", "ok", "truncated")) as stub:
        ends = done(stub, path)
        assert (stub.count.batches, stub.count.batched) == (2, len(ROWS) + 2)
    assert [end.asks for end in ends] == [2, 1, 2, 1, 1, 1]
    assert ends[0].cost_usd > ends[1].cost_usd
    assert {end.reason for end in ends} == {None}


def test_attempts_are_used_up_at_last(path: Path) -> None:
    with Stub(batch_script=("rival",) * 100) as stub:
        ends = done(stub, path, attempts=2)
    assert {(end.asks, end.reason) for end in ends} == {
        (4 if row.facts else 2, "rival claim") for row in ROWS
    }


def test_a_provider_that_talks_mostly_nonsense_is_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "WINDOW", len(ROWS))
    with (
        Stub(batch_script=("rival",) * 100) as stub,
        pytest.raises(ProviderError, match=r"half of the last 6 answers.*rival claim 6"),
    ):
        done(stub, path)
    assert stub.count.batches == 1


@pytest.mark.parametrize("kind", [OpenRouter, Gemini])
def test_errors_inside_a_batch_are_not_paid_and_asked_again(kind: type[Chat], path: Path) -> None:
    with Stub(batch_script=("overloaded-503", "ok", "rate-limit", "error-in-choice")) as stub:
        with Job(stub, path, kind) as job:
            ends = asyncio.run(job.run())
            money = job.journal.money
        assert (stub.count.batches, money.lost) == (2, 0)
        assert money.answered_usd == pytest.approx(stub.count.cost)
    assert {end.reason for end in ends} == {None}


def test_an_error_that_concerns_every_request_ends_the_run_and_the_rest_is_kept(path: Path) -> None:
    with Stub(batch_script=("ok", "no-credit")) as stub:
        with pytest.raises(ProviderError, match=r"provider openrouter: .*Add credit"):
            done(stub, path)
        with Job(stub, path) as job:
            assert (job.journal.money.answers, job.journal.money.flying) == (len(ROWS) - 1, 0)


@pytest.mark.parametrize("kind", [OpenRouter, Gemini])
@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_an_expired_batch_has_is_kept_and_the_rest_handed_in_again(
    kind: type[Chat], end: str, path: Path
) -> None:
    class Later(kind):  # type: ignore[misc, valid-type]
        async def submit(self, requests: Any) -> str:
            if stub.count.batches:
                stub.settings.batch_end = "completed"
            return str(await super().submit(requests))

    with Stub(batch_end=end) as stub:
        ends = done(stub, path, Later)
        assert (stub.count.batches, stub.count.batched) == (2, 6 + 3)
    assert {(one.asks, one.reason) for one in ends} == {(1, None)}


def test_a_batch_that_fails_again_and_again_ends_the_run_with_the_reason(path: Path) -> None:
    with Stub(batch_end="failed") as stub:
        with pytest.raises(ProviderError, match=r"4 attempts.*failed \(The batch failed\.\)"):
            done(stub, path)
        assert stub.count.batches == batching.ROUNDS
        with Job(stub, path) as job:
            assert job.journal.money.spent_usd < 1e-4, "nothing but the probe"


def test_a_batch_that_is_not_known_any_more_counts_as_spent(path: Path) -> None:
    with Stub(batch_polls=1000) as stub:
        left(stub, path)
        stub.settings.batch_polls = 1
        stub.reset()
        with Job(stub, path) as job:
            ends = asyncio.run(job.run())
            assert (job.journal.money.lost, job.journal.money.flying) == (len(ROWS), 0)
    assert {end.reason for end in ends} == {None}


def test_a_server_that_is_busy_is_asked_again_and_nothing_is_lost(path: Path) -> None:
    faults = ("overloaded-503", "rate-limit-bare", "ok", "overloaded-503", "reset", "html-502")
    with Stub(script=faults, hits=("batch",)) as stub, Job(stub, path) as job:
        ends = asyncio.run(job.run())
        assert (stub.count.batches, job.journal.money.lost) == (1, 0)
    assert {end.reason for end in ends} == {None}


def test_a_batch_that_may_have_been_taken_counts_as_spent(path: Path) -> None:
    with Stub(script=("cut-body",), hits=("batch",)) as stub, Job(stub, path) as job:
        asyncio.run(job.run())
        assert (stub.count.batches, job.journal.money.lost) == (2, len(ROWS))


def test_a_batch_that_is_refused_ends_the_run_with_nothing_reserved(path: Path) -> None:
    class Base(OpenRouter):
        async def submit(self, requests: Any) -> str:
            self.refuse(400, {"message": "Model 'x' does not have a :batch endpoint."}, {})

    with Stub() as stub:
        with pytest.raises(ProviderError, match=r"provider_model.*variant :batch") as error:
            done(stub, path, Base)
        assert not isinstance(error.value, ProviderBusy | AnswerLost)
        with Job(stub, path) as job:
            assert (job.journal.money.flying, job.journal.money.batched) == (0, 0)


def left(stub: Stub, path: Path, kind: type[Chat] = OpenRouter) -> str:
    """Hand in a batch, ask after it once and go away; return what was said."""
    with Job(stub, path, kind) as job, pytest.raises(ImprintError) as error:
        job.asked.watch = job.asked.interrupt
        asyncio.run(job.run())
    return str(error.value)


@pytest.mark.parametrize("kind", [OpenRouter, Gemini])
def test_an_interrupted_run_leaves_its_batch_and_the_next_collects_it(
    kind: type[Chat], path: Path
) -> None:
    with Stub(batch_polls=1000) as stub:
        said = left(stub, path, kind)
        assert f"go on at {kind.name}: 1. They will be paid: run the same command again" in said
        with Journal(path) as book:
            assert (book.money.batched, book.money.flying, book.money.lost) == (6, 6, 0)
            reserved = book.money.flying_usd
        assert reserved > 0
        stub.settings.batch_polls = 1
        ends = done(stub, path, kind)
        assert (stub.count.batches, stub.count.batched) == (1, len(ROWS))
    assert {end.reason for end in ends} == {None}


def test_an_interrupt_while_a_batch_is_handed_in_waits_for_its_name(path: Path) -> None:
    class Interrupted(OpenRouter):
        async def submit(self, requests: Any) -> str:
            jobs[0].asked.interrupt()
            return await super().submit(requests)

    jobs: list[Job] = []
    with Stub() as stub:
        with Job(stub, path, Interrupted) as job:
            jobs.append(job)
            with pytest.raises(ImprintError, match=r"go on at openrouter: 1\."):
                asyncio.run(job.run())
        done(stub, path)
        assert stub.count.batches == 1


SCRIPT = """
import asyncio, os, signal, sys
from pathlib import Path
from generation.test_batching import Job, batching
from imprint.providers.openrouter import OpenRouter

class Doomed(OpenRouter):
    async def submit(self, requests):
        name = await super().submit(requests)
        if sys.argv[3] == "at once":
            os.kill(os.getpid(), signal.SIGKILL)
        return name

class There:
    def base(self, dialect):
        return sys.argv[1]

batching.FIRST_S = batching.LONGEST_S = 0.01
asyncio.run(Job(There(), Path(sys.argv[2]), Doomed).run())
"""


def polled(stub: Stub) -> bool:
    return any(route.startswith("GET /api/v1/batches/") for route in stub.count.others)


def killed(stub: Stub, path: Path, when: str) -> None:
    """Have a process hand in a batch, and kill it."""
    arguments = [stub.base("openrouter"), str(path), when]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    running = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], env=environment)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.01)
        if polled(stub):
            running.send_signal(signal.SIGKILL)
    assert running.wait(10) == -signal.SIGKILL


def test_a_batch_survives_the_kill_of_its_worker_and_is_not_handed_in_again(path: Path) -> None:
    with Stub(batch_polls=10**6) as stub:
        killed(stub, path, "later")
        stub.settings.batch_polls = 1
        ends = done(stub, path)
        assert (stub.count.batches, stub.count.batched) == (1, len(ROWS))
        with Journal(path) as book:
            assert (book.money.lost, book.money.answers) == (0, len(ROWS))
            assert book.money.spent_usd == pytest.approx(stub.count.cost)
    assert {end.reason for end in ends} == {None}


def test_a_kill_before_the_batch_has_a_name_loses_that_batch_and_says_so(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Stub(batch_polls=1) as stub:
        killed(stub, path, "at once")
        ends = done(stub, path)
        assert stub.count.batches == 2
        with Journal(path) as book:
            assert book.money.lost == len(ROWS)
            assert book.money.lost_usd == pytest.approx(most(ROWS))
    assert "6 requests were being handed in as a batch when their process died" in caplog.text
    assert {end.reason for end in ends} == {None}


def test_two_shards_have_batches_of_their_own_and_one_probe(path: Path) -> None:
    with Stub() as stub, Job(stub, path) as one, Job(stub, path) as other:

        async def both() -> tuple[list[Conclusion], list[Conclusion]]:
            return await asyncio.gather(one.run(ROWS[:4]), other.run(ROWS[4:]))

        first, second = asyncio.run(both())
        assert sorted(len(body["requests"]) for body in list(stub.count.bodies)[1:]) == [2, 4]
        assert one.journal.progress().done == len(ROWS)
    assert [len(first), len(second)] == [4, 2]


def test_two_workers_on_the_same_rows_hand_them_in_once(path: Path) -> None:
    with Stub(batch_polls=5) as stub, Job(stub, path) as one, Job(stub, path) as other:

        async def both() -> tuple[list[Conclusion], list[Conclusion]]:
            return await asyncio.gather(one.run(), other.run())

        first, second = asyncio.run(both())
        assert first == second
        assert (stub.count.batches, stub.count.batched) == (1, len(ROWS))
        with one.journal.transaction():
            money = one.journal.money
        assert (money.answers, money.flying, money.batched) == (len(ROWS), 0, 0)
        assert money.answered_usd == pytest.approx(stub.count.cost)


def test_each_worker_takes_its_own_rows_from_a_batch_that_holds_more(path: Path) -> None:
    with Stub(batch_polls=1000) as stub:
        left(stub, path)
        stub.settings.batch_polls = 1
        for rows in (ROWS[:2], ROWS[2:]):
            with Job(stub, path) as job:
                ends = asyncio.run(job.run(rows))
                assert {end.reason for end in ends} == {None}
        assert stub.count.batches == 1


def test_the_log_tells_how_far_a_batch_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "imprint")
    with Stub(batch_polls=4) as stub:
        done(stub, path)
    told = [record.message for record in caplog.records if record.message.startswith("batch ")]
    assert told == [
        "batch batch_stub1: 6 requests handed in",
        "batch batch_stub1: in_progress, 6 requests, handed in 0 min ago",
        "batch batch_stub1: finalizing, 6 requests, handed in 0 min ago",
        "batch batch_stub1: completed, 6 requests, handed in 0 min ago",
    ]


def test_a_poll_comes_later_the_older_a_batch_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "FIRST_S", 2.0)
    monkeypatch.setattr(batching, "LONGEST_S", 60.0)
    with Stub() as stub, Job(stub, path) as job:
        ages = iter([0.0, 100.0, 86400.0])

        def opened() -> list[batchbook.Open]:
            return [batchbook.Open("x", time.time() - next(ages), [])]

        monkeypatch.setattr(job.asked, "_open", opened)
        assert [round(job.asked._rest_s()) for _ in range(3)] == [2, 10, 60]
        asyncio.run(job.writer.close())


def test_a_provider_without_batches_is_refused_before_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(
        ConfigError, match=r"batch: openai has no batches here\. Set batch to false"
    ):
        OpenAI(WHO, Provision(batch=True))


def test_rows_in_open_batches_are_not_asked_for_one_by_one(path: Path) -> None:
    with Stub(batch_polls=1000) as stub:
        left(stub, path)
        single = Provision(base_url=stub.base("openrouter"))
        writer = OpenRouter(WHO, single)
        with Journal(path) as book:
            with pytest.raises(ConfigError, match=r"batch: 6 of these .*Set batch to true"):
                asker(ROWS, writer, single, book)
            others = plan.rows(WHO, seed=1, start=6, stop=9)
            assert asker(others, writer, single, book) is Generation
            assert asker(ROWS, writer, Provision(batch=True), book) is Batching


def test_open_batches_of_others_leave_room_for_single_requests(path: Path) -> None:
    others = plan.rows(WHO, seed=1, start=6, stop=9)
    with Stub(batch_polls=1000) as stub:
        left(stub, path)
        single = Provision(base_url=stub.base("openrouter"), in_flight=2)
        with Journal(path) as book:

            async def run() -> list[Conclusion]:
                writer = OpenRouter(WHO, single)
                terms: dict[str, Any] = {"tariff": HALF, "objection": objection}
                asked = Generation(writer, journal=book, provision=single, **terms)
                try:
                    return await asyncio.wait_for(asked.run(others), 10)
                finally:
                    await writer.close()

            assert {end.reason for end in asyncio.run(run())} == {None}
            assert book.money.batched == len(ROWS)


def test_a_body_goes_into_a_batch_as_it_would_go_alone(path: Path) -> None:
    with Stub() as stub:
        done(stub, path, Gemini)
        sent = stub.count.bodies[-1]["batch"]
        writer = Gemini(WHO, Provision())
        writer.mode = "json_schema"
        requests = [writer.request(row) for row in ROWS]
    assert sent["inputConfig"]["requests"]["requests"] == json.loads(
        json.dumps(
            [{"request": writer.body(one), "metadata": {"key": one.key}} for one in requests]
        )
    )


def test_a_shard_is_made_in_batches_from_plan_to_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imprint")
    with Stub() as stub:
        data = Dataset(tmp_path / "results", size=8).plan(16)
        terms: dict[str, Any] = {"base_url": stub.base("openrouter"), "batch": True}
        data.make(provider="openrouter", price={"input": 0.05, "output": 0.2}, **terms)
        assert (stub.count.batches, stub.count.received) == (2, 1)
        first = [shard.read_bytes() for shard in data.shards]
        data.make(provider="openrouter", price={"input": 0.05, "output": 0.2}, **terms)
        assert [shard.read_bytes() for shard in data.shards] == first
        assert stub.count.batches == 2
    line = data.lines(1)[0]
    assert (line["id"], line["meta"]["model_answered"]) == ("000008", OpenRouter.default_model)


def test_a_job_that_is_stopped_says_that_its_batch_goes_on(tmp_path: Path) -> None:
    with Stub(batch_polls=10**6) as stub:
        data = Dataset(tmp_path / "results", size=8).plan(8)

        def stop() -> None:
            while not polled(stub):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

        stopping = threading.Thread(target=stop)
        stopping.start()
        with pytest.raises(ImprintError, match=r"go on at openrouter: 1\..*same command again"):
            data.make(
                provider="openrouter",
                price={"input": 0.05, "output": 0.2},
                base_url=stub.base("openrouter"),
                batch=True,
            )
        stopping.join()
        assert not (data.root / "shards").exists()
