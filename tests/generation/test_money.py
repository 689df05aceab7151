import re
from pathlib import Path
from typing import Any

import pytest

from generation.kit import FAULTS, Fake, asked_most, bad, money, over, query, rows, run, usable
from imprint.errors import ProviderError
from imprint.generation.journal import Journal
from imprint.providers import Request
from imprint.providers.chat import Chat
from imprint.providers.gemini import Gemini
from imprint.providers.openai import OpenAI
from imprint.providers.openrouter import OpenRouter
from stubs.server import Stub


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENROUTER", "OPENAI", "GEMINI"):
        monkeypatch.setenv(f"{name}_API_KEY", "stub-key")


@pytest.mark.parametrize("kind", [OpenRouter, OpenAI, Gemini])
def test_the_journal_and_the_bill_agree(book: Path, kind: type[Chat]) -> None:
    """The probe and rejected answers are paid for too; errors are not."""
    kinds = ("truncated", "rival", "not-json", "overloaded-503", "rate-limit", "error-in-200")
    with Stub(rate=0.2, kinds=kinds, retry_after=0.05) as stub:
        assert usable(over(stub, rows(160), book, kind=kind)) == 160
        cost, faults = stub.count.cost, stub.count.faults
    assert len(faults) == len(kinds)
    assert money(book)["spent"] == pytest.approx(cost, rel=1e-9)
    assert money(book)["lost"] == 0
    rest = query(book, "SELECT sum(cost_usd) FROM answers")[0][0]
    assert cost - 0.0002 < rest < cost, "but for the probe"


def test_a_budget_of_nothing_sends_nothing(book: Path) -> None:
    with Stub() as stub:
        with pytest.raises(ProviderError, match=r"budget_usd: \$0.0000 of \$0.00 is spent"):
            over(stub, rows(10), book, budget_usd=0)
        assert stub.count.received == 0


@pytest.mark.parametrize("kind", [OpenRouter, OpenAI])
def test_the_budget_holds_whatever_goes_wrong_and_a_higher_one_goes_on(
    book: Path, kind: type[Chat]
) -> None:
    faults = tuple(name for name in FAULTS if kind is OpenRouter or name != "in-flight-budget")
    terms: dict[str, Any] = {"kind": kind, "in_flight": 256, "timeout_s": 1.5}
    # Lost answers cost what they can have cost at most, so they eat the budget first.
    stub = Stub(rate=0.15, kinds=faults, latency=0.05, retry_after=0.05, bills_lost=True, seed=1)
    with stub:
        with pytest.raises(ProviderError) as caught:
            over(stub, rows(600), book, budget_usd=0.08, **terms)
    count, told = stub.count, str(caught.value)
    spent = money(book)
    assert count.cost <= spent["spent"] <= 0.08
    assert spent["spent"] > 0.077, "the budget is used"
    assert spent["lost"] > 3
    assert spent["flying"] == 0
    assert f"budget_usd: ${spent['spent']:.4f} of $0.08 is spent" in told
    assert f"${spent['lost_usd']:.4f} of it for answers that never arrived" in told
    assert f"All {spent['answers']} answers so far are kept" in told
    assert "Set budget_usd higher in config/config.yaml and run again: it goes on from here" in told
    assert asked_most(stub) == 1

    with Stub(latency=0.01) as stub:
        again = {**terms, "timeout_s": 30, "base_url": stub.base(kind.name)}
        assert usable(over(stub, rows(600), book, budget_usd=1.0, **again)) == 600
    assert stub.count.answered + spent["answers"] <= money(book)["answers"] + 1, "and a probe"
    assert money(book)["spent"] == pytest.approx(spent["spent"] + stub.count.cost)


def test_lost_answers_count_at_their_most_and_errors_do_not(book: Path) -> None:
    errors = ("overloaded-500", "rate-limit", "in-flight-budget", "error-in-200", "error-in-choice")
    lost = ("reset", "cut-body", "hang", "html", "html")
    script = ("ok", *errors, *lost)
    with Stub(script=script, bills_lost=True, retry_after=0.01) as stub:
        ends = over(stub, rows(3), book, timeout_s=3)
    assert usable(ends) == 3
    found = money(book)
    assert found["lost"] == len(lost)
    assert found["lost_usd"] > len(lost) * found["answered_usd"] / found["answers"]
    assert stub.count.cost <= found["spent"]


def test_what_a_dead_worker_had_under_way_counts(book: Path) -> None:
    with Journal(book) as dead:
        with dead.transaction():
            for key in "ab":
                assert dead.reserve(key, most_usd=0.25, budget_usd=1) == "go"
        with Journal(book) as living:
            assert (living.money.flying, living.money.spent_usd) == (2, 0.5)
            dead._lock.close()  # as the system does when a process ends
            living.bury()
            assert (living.money.flying, living.money.lost, living.money.spent_usd) == (0, 2, 0.5)
            with living.transaction():
                assert living.reserve("c", most_usd=0.6, budget_usd=1) == "dear"
                assert living.reserve("a", most_usd=0.4, budget_usd=1) == "go"


def test_a_request_is_made_once_at_a_time_and_never_again(book: Path) -> None:
    provider = Fake()
    request = provider.request(rows(1)[0])
    with Journal(book) as one, Journal(book) as other:
        terms = {"most_usd": 0.1, "budget_usd": 0.15}
        with one.transaction():
            assert one.reserve(request.key, **terms) == "go"
        with other.transaction():
            assert other.reserve(request.key, **terms) == "taken"
            assert other.reserve("another", **terms) == "dear"
        with one.transaction():
            one.keep(request, bad(), cost_usd=0.15, seconds=1.0)
        with other.transaction():
            assert other.reserve(request.key, **terms) == "answered"


def test_a_budget_that_others_hold_is_waited_for(book: Path) -> None:
    """Two requests fit the budget if they cost their most, forty if they cost what they do."""
    provider = Fake(seconds=0.0)
    most = 0.1 * (len("version 1 about ") / 2 + 400) / 1e6 + 0.4 * 1000 / 1e6
    ends = run(provider, rows(4), book, budget_usd=2 * most + 0.0004)
    assert usable(ends) == 4
    assert provider.most <= 2


def test_the_end_of_the_budget_names_numbers_that_add_up(book: Path) -> None:
    provider = Fake()
    with pytest.raises(ProviderError) as caught:
        run(provider, rows(100), book, budget_usd=0.002)
    numbers = re.search(
        r"\$([\d.]+) of \$0.00 is spent, and the next .* cost \$([\d.]+)\. All (\d+)",
        str(caught.value),
    )
    assert numbers
    spent, following, kept = (float(number) for number in numbers.groups())
    assert spent == pytest.approx(kept * 0.0001)
    assert spent + following >= 0.00199
    assert kept == len(provider.asked)


@pytest.mark.parametrize("kind", [OpenRouter, OpenAI, Gemini])
def test_with_faults_of_every_kind_nothing_is_missing_and_nothing_is_answered_twice(
    book: Path, kind: type[Chat]
) -> None:
    faults = tuple(name for name in FAULTS if kind is OpenRouter or name != "in-flight-budget")
    with Stub(rate=0.1, kinds=faults, latency=0.02, retry_after=0.1, seed=3) as stub:
        ends = over(stub, rows(300), book, kind=kind, timeout_s=5)
        count = stub.count
    assert [end.row.index for end in ends] == list(range(300))
    assert usable(ends) == 300
    assert asked_most(stub) == 1
    assert sum(count.faults.values()) > 20
    assert len(count.faults) > 12


def test_a_request_in_vain_is_the_same_request_again() -> None:
    provider = Fake()
    first, second = (provider.request(rows(1)[0], ask) for ask in (1, 2))
    assert isinstance(first, Request)
    assert first.key == provider.request(rows(1)[0], 1).key != second.key
