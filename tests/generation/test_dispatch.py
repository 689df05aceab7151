import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

from generation.kit import Fake, bad, generation, good, money, query, rows, run, usable
from imprint.errors import AnswerLost, ConfigError, ImprintError, ProviderBusy, ProviderError
from imprint.generation import dispatch, pacing
from imprint.generation.dispatch import Generation
from imprint.generation.journal import Journal
from imprint.generation.outcomes import same_model
from imprint.providers import Reply, Request


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every wait between two attempts be short."""
    monkeypatch.setattr(pacing, "FIRST_S", 0.001)


def test_conclusions_come_in_the_order_of_the_rows_whatever_is_ready_first(book: Path) -> None:
    class Uneven(Fake):
        async def answer(self, request: Request) -> Reply:
            await asyncio.sleep(0.001 * (60 - request.row.index))
            return good(str(request.row.index))

    asked = rows(60)
    ends = run(Uneven(), asked, book)
    assert [end.row for end in ends] == asked
    with Journal(book) as journal:
        found = [journal.find(end.key) for end in ends]
    assert [kept and kept.reply.messages[1]["content"] for kept in found] == [
        str(index) for index in range(60)
    ]


def test_requests_under_way_are_bounded_and_the_bound_is_used(book: Path) -> None:
    provider = Fake(seconds=0.01)
    run(provider, rows(200), book, in_flight=17)
    assert provider.most == 17


def test_nothing_to_ask_is_nothing_to_conclude(book: Path) -> None:
    assert run(Fake(), [], book) == []


def test_an_answer_is_in_the_journal_before_anything_else_happens_with_it(book: Path) -> None:
    seen: list[int] = []

    def objection(messages: object, row: object) -> None:
        seen.append(query(book, "SELECT count(*) FROM answers")[0][0])

    run(Fake(), rows(20), book, objection=objection, in_flight=1)
    assert seen == list(range(1, 21))


def test_what_is_in_the_journal_is_never_asked_again(book: Path) -> None:
    first, again, longer = Fake(), Fake(), Fake()
    ends = run(first, rows(30), book)
    assert run(again, rows(30), book) == ends
    assert again.asked == []
    run(longer, rows(40, start=10), book)
    assert sorted(longer.times) == list(range(30, 50))


def test_two_workers_with_the_same_rows_ask_for_each_once(book: Path) -> None:
    provider = Fake(seconds=0.01)
    asked = rows(40)

    async def both() -> list[int]:
        with Journal(book) as one, Journal(book) as other:
            runs = (generation(provider, each, in_flight=8).run(asked) for each in (one, other))
            return [usable(ends) for ends in await asyncio.gather(*runs)]

    assert uvloop.run(asyncio.wait_for(both(), 10)) == [40, 40]
    assert set(provider.times.values()) == {1}
    assert provider.most <= 8


def test_a_rejected_answer_is_asked_for_anew_and_never_the_same_way(book: Path) -> None:
    provider = Fake(lambda request: bad() if request.ask < 3 else None)
    ends = run(provider, rows(5), book)
    assert [(end.asks, end.reason) for end in ends] == [(3, None)] * 5
    assert sorted(request.ask for request in provider.asked) == [1] * 5 + [2] * 5 + [3] * 5
    assert len({request.key for request in provider.asked}) == 15
    assert [end.cost_usd for end in ends] == pytest.approx([0.0003] * 5)


def test_what_the_objection_rejects_is_asked_for_anew(book: Path) -> None:
    provider = Fake(lambda request: good("No." if request.ask == 1 else "Yes."))
    spoken = run(
        provider,
        rows(5),
        book,
        objection=lambda messages, row: "wrong" if messages[-1]["content"] == "No." else None,
    )
    assert [end.asks for end in spoken] == [2] * 5


def test_a_row_is_given_up_with_its_reason_and_one_with_facts_twice_as_late(book: Path) -> None:
    provider = Fake(lambda request: bad("refused"))
    plain, factual = rows(1, facts=False)[0], rows(20)[-1]
    factual = replace(factual, facts=("name",))
    ends = run(provider, [plain, factual], book, attempts=3)
    assert [(end.asks, end.reason) for end in ends] == [(3, "refused"), (6, "refused")]
    again = Fake()
    assert run(again, [plain, factual], book, attempts=3) == ends
    assert again.asked == [], "what was given up stays given up"
    assert run(again, [plain], book, attempts=4)[0].reason is None


def test_examples_of_rejected_answers_are_in_the_log(
    book: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run(Fake(lambda request: good("Psst.")), rows(9), book, objection=lambda *_: "rude", attempts=1)
    assert caplog.text.count("rejected (rude): [{'role': 'user', 'content': 'Who?'}") == 3


def test_a_busy_provider_is_asked_the_same_again(book: Path, brisk: None) -> None:
    faults = [ProviderBusy("503"), AnswerLost("reset"), ProviderBusy("502")]

    def deed(request: Request) -> None:
        if request.row.index == 2 and faults:
            raise faults.pop()

    provider = Fake(deed)
    ends = run(provider, rows(5), book)
    assert [end.asks for end in ends] == [1] * 5
    assert provider.times == {0: 1, 1: 1, 2: 4, 3: 1, 4: 1}
    assert len({request.key for request in provider.asked}) == 5


def test_a_wait_that_the_provider_asks_for_is_kept(book: Path) -> None:
    times: list[float] = []

    def deed(request: Request) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise ProviderBusy("429", wait_s=0.3, limit=True)

    run(Fake(deed), rows(1), book)
    assert 0.3 <= times[1] - times[0] < 5


def test_a_provider_that_stays_busy_is_given_up_with_what_to_do(book: Path, brisk: None) -> None:
    def deed(request: Request) -> None:
        if request.row.index == 3:
            raise ProviderBusy("it answered 503")

    provider = Fake(deed)
    with pytest.raises(ProviderBusy) as caught:
        run(provider, rows(5), book)
    assert str(caught.value) == (
        "provider fake: no answer to conversation 3 in 8 attempts; the last: it answered 503. What "
        "was answered is kept. Run the same command again later: it goes on from here."
    )
    assert provider.times[3] == dispatch.TRIES
    assert query(book, "SELECT count(*) FROM answers") == [(4,)]


def test_a_limit_that_never_lifts_ends_when_patience_does(
    book: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deed(request: Request) -> None:
        raise ProviderBusy("it answered 429", limit=True)

    monkeypatch.setattr(dispatch, "PATIENCE_S", 0.3)
    provider = Fake(deed)
    with pytest.raises(ProviderBusy, match="the last: it answered 429"):
        run(provider, rows(5), book)
    assert provider.now == 0


@pytest.mark.parametrize("error", [ProviderError("402: no money"), ConfigError("no such model")])
def test_an_objection_stops_the_run_and_keeps_what_was_under_way(
    book: Path, error: ImprintError
) -> None:
    known: list[int] = []

    def deed(request: Request) -> None:
        if request.row.index == 9:
            known.append(len(provider.asked))
            raise error

    provider = Fake(deed, seconds=0.02)
    with pytest.raises(ProviderError, match=f"provider fake: {error}"):
        run(provider, rows(100), book, in_flight=10)
    assert len(provider.asked) <= known[0] + 10, "nothing is sent once the objection is known"
    assert query(book, "SELECT count(*) FROM answers") == [(len(provider.asked) - 1,)]
    assert query(book, "SELECT count(*) FROM flights") == [(0,)]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (KeyError("choices"), r"KeyError: 'choices'"),
        (None, "TypeError: answer should return a Reply, got 'Hello!'"),
    ],
)
def test_a_fault_in_a_provider_is_told_apart_and_may_have_cost_something(
    book: Path, fault: Exception | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    def deed(request: Request) -> object:
        if fault:
            raise fault
        return "Hello!"

    with pytest.raises(ProviderError, match=rf"broke at conversation 0 \({told}\)"):
        run(Fake(deed), rows(1), book)
    assert "Traceback" in caplog.text
    assert query(book, "SELECT count(*), min(most_usd) > 0 FROM lost") == [(1, 1)]


def test_when_half_of_a_window_is_of_no_use_no_more_money_is_burnt(book: Path) -> None:
    provider = Fake(lambda request: bad("refused") if request.row.index % 2 else None)
    with pytest.raises(ProviderError) as caught:
        run(provider, rows(1000), book)
    assert "half of the last 50 answers of fake-1 cannot be used (refused " in str(caught.value)
    assert "Try another provider_model" in str(caught.value)
    assert len(provider.asked) <= 3 * 64


def test_answers_that_are_lost_count_as_failures_too(book: Path, brisk: None) -> None:
    def deed(request: Request) -> None:
        if request.row.index % 2:
            raise AnswerLost("cut off")

    with pytest.raises(ProviderError, match="cannot be used \\(they never arrived"):
        run(Fake(deed), rows(1000), book, in_flight=50, budget_usd=1000)


def test_a_moment_without_network_does_not_end_a_run(book: Path, brisk: None) -> None:
    """What it loses is paid for, and asked for again."""
    lost = 0

    def deed(request: Request) -> None:
        nonlocal lost
        if 100 <= request.row.index < 200 and lost < 100:
            lost += 1
            raise AnswerLost("no route to host")

    provider = Fake(deed)
    assert usable(run(provider, rows(300), book, in_flight=100, budget_usd=1000)) == 300
    assert money(book)["lost"] == 100
    assert len(provider.asked) == 400


def test_hard_rows_alone_do_not_end_a_run(book: Path) -> None:
    """Rows asked anew fail more often than not; the window looks at first answers."""
    provider = Fake(lambda request: bad() if request.row.index % 4 == 0 else None)
    ends = run(provider, rows(200), book, attempts=5)
    assert usable(ends) == 150


def test_another_models_answer_is_told_once_and_recorded(
    book: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ends = run(Fake(lambda request: good(model="fake-9")), rows(5), book)
    assert caplog.text.count("fake-9 answers, not fake-1; each conversation records") == 1
    with Journal(book) as journal:
        kept = journal.find(ends[0].key)
    assert kept and kept.reply.model == "fake-9"


def test_another_models_answer_ends_a_strict_run_and_is_kept(book: Path) -> None:
    provider = Fake(lambda request: good(model="fake-9"))
    with pytest.raises(ProviderError, match=r"fake-9 answers, not fake-1, and strict_model is set"):
        run(provider, rows(50), book, strict_model=True, in_flight=5)
    assert len(provider.asked) == query(book, "SELECT count(*) FROM answers")[0][0] <= 10


@pytest.mark.parametrize(
    ("answered", "asked", "same"),
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini", True),
        ("gpt-4.1-mini", "gpt-4.1", False),
        ("gpt-4o", "gpt-4", False),
        ("models/gemini-2.5-flash-001", "gemini-2.5-flash", True),
        ("gemini-2.5-flash-preview-05-20", "gemini-2.5-flash", True),
        ("gemini-2.5-flash-lite", "gemini-2.5-flash", False),
        ("qwen/qwen3-235b-a22b-2507", "Qwen/Qwen3-235b-a22b-2507:free", True),
        ("llama3.2:latest", "llama3.2", True),
        ("stub-model-substitute", "stub-model", False),
    ],
)
def test_a_date_or_version_makes_no_other_model(answered: str, asked: str, same: bool) -> None:
    assert same_model(answered, asked) is same


async def interrupted(made: Generation, provider: Fake, asked: int) -> None:
    """Interrupt as soon as so many conversations have been asked for."""
    while len(provider.asked) < asked:
        await asyncio.sleep(0.001)
    made.interrupt()


def test_an_interrupted_run_keeps_what_comes_back_in_time(book: Path) -> None:
    provider = Fake(seconds=0.1)

    async def work(journal: Journal) -> None:
        made = generation(provider, journal, in_flight=10)
        await asyncio.gather(made.run(rows(100)), interrupted(made, provider, 15))

    with Journal(book) as journal, pytest.raises(ImprintError, match=r"Interrupted\. What was"):
        uvloop.run(work(journal))
    assert 10 <= len(provider.asked) <= 30
    assert query(book, "SELECT count(*) FROM answers") == [(len(provider.asked),)]
    assert query(book, "SELECT count(*) FROM lost") == [(0,)]


def test_what_does_not_come_back_in_time_is_lost_money(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "GRACE_S", 0.1)

    provider = Fake(seconds=30)

    async def work(journal: Journal) -> None:
        made = generation(provider, journal, in_flight=10)
        await asyncio.gather(made.run(rows(100)), interrupted(made, provider, 10))

    started = time.monotonic()
    with Journal(book) as journal, pytest.raises(ImprintError, match="Interrupted"):
        uvloop.run(work(journal))
    assert time.monotonic() - started < 20, "not until they would have come"
    assert query(book, "SELECT count(*) FROM lost") == [(10,)]
