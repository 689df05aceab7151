import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from generation.kit import Fake, good, rows
from imprint.generation import live
from imprint.generation.journal import Journal
from imprint.generation.live import Live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, for the test to change."""
    now = [100.0]
    monkeypatch.setattr("imprint.generation.live.time.monotonic", lambda: now[0])
    yield now


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite") as found:
        yield found


def work(journal: Journal, **counts: int) -> None:
    with journal.transaction():
        journal.report(**counts)


def test_the_line_tells_what_is_done_and_spent_and_how_long_it_takes(
    journal: Journal, clock: list[float]
) -> None:
    work(journal, total=200, done=10)
    shown = Live(journal, budget_usd=5.0, terminal=None)
    with journal.transaction():
        journal.reserve("a", most_usd=0.5, budget_usd=5)
        request = Fake().request(rows(1)[0])
        journal.keep(request, good(), cost_usd=0.0123, seconds=1.0)
        journal.report(total=200, done=50, retried=3, rejected=2)
    clock[0] += 10
    assert shown.line(journal.progress()) == (
        "conversations 50/200, 4.0/s, 1 in flight, 3 retried, 2 rejected, $0.0123 of $5.00 spent, "
        "38 s left"
    )


def test_before_the_first_conversation_no_time_is_told(journal: Journal) -> None:
    shown = Live(journal, budget_usd=5.0, terminal=None)
    work(journal, total=200)
    assert shown.line(journal.progress()).startswith("conversations 0/200, 0.0/s, 0 in flight")
    assert shown.line(journal.progress()).endswith("starting")


def test_progress_is_the_sum_over_all_workers_of_the_run(journal: Journal) -> None:
    work(journal, total=500, done=500)
    with Journal(journal.path) as start:
        start.begin(120)
    with Journal(journal.path) as ended:
        work(ended, total=50, done=50, retried=2)
    with Journal(journal.path) as one, Journal(journal.path) as other:
        work(one, total=30, done=7, retried=1)
        work(other, total=40, done=5, rejected=4)
        for worker in (one, other):
            found = worker.progress()
            assert (found.total, found.done) == (120, 62)
            assert (found.retried, found.rejected) == (3, 4)


def test_one_of_two_workers_draws_and_the_other_when_the_first_is_gone(
    journal: Journal, clock: list[float]
) -> None:
    first, second = Terminal(), Terminal()
    with Journal(journal.path) as start:
        start.begin(100)
    two = Journal(journal.path)
    with Journal(journal.path) as three:
        leader = Live(two, budget_usd=5.0, terminal=first)
        follower = Live(three, budget_usd=5.0, terminal=second)
        clock[0] += live.TERMINAL_S
        leader()
        follower()
        assert "conversations 0/100" in first.getvalue()
        assert first.getvalue().startswith("\r\033[K")
        assert second.getvalue() == ""
        two.close()
        clock[0] += live.TERMINAL_S
        follower()
        assert "conversations 0/100" in second.getvalue()


def test_a_terminal_is_drawn_on_twice_a_second_and_left_clean(
    journal: Journal, clock: list[float]
) -> None:
    terminal = Terminal()
    shown = Live(journal, budget_usd=5.0, terminal=terminal)
    for _ in range(1000):
        clock[0] += 0.01
        shown()
    assert 18 <= terminal.getvalue().count("conversations") <= 20
    shown.end()
    assert terminal.getvalue().endswith("\r\033[K")


def test_a_log_gets_a_plain_line_now_and_then_and_at_the_end(
    journal: Journal, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pipe = io.StringIO()
    shown = Live(journal, budget_usd=5.0, terminal=pipe)
    for _ in range(600):
        clock[0] += 0.1
        shown()
    assert 5 <= len(caplog.records) <= 6
    shown.end()
    assert 6 <= len(caplog.records) <= 7
    assert all(record.message.startswith("conversations 0/0") for record in caplog.records)
    assert "\r" not in caplog.text
    assert pipe.getvalue() == "", "what is no terminal is not drawn on"
