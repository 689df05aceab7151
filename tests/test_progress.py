import io
import logging

import pytest

from imprint import progress
from imprint.progress import Progress


def work(*, quiet: bool = False, done: int = 0) -> None:
    with Progress("sft", total=4, unit="tokens", quiet=quiet) as shown:
        shown.skip(done)
        for _ in range(done, 4):
            shown.advance(amount=100, loss=2.5)


def test_a_log_gets_lines_with_rate_loss_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "imprint"):
        work()
    assert len(caplog.messages) == 5
    assert caplog.messages[0].startswith("sft 1/4 loss 2.5, ")
    assert "tokens/s" in caplog.messages[0] and "s left" in caplog.messages[0]
    assert caplog.messages[-1].startswith("sft 4/4, ")


def test_lines_are_seconds_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "imprint"):
        work()
    assert len(caplog.messages) == 1


def test_only_the_first_process_speaks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "imprint"):
        work(quiet=True)
    assert caplog.messages == []


def test_what_an_earlier_run_did_does_not_count_as_speed() -> None:
    with Progress("sft", total=100, unit="tokens", quiet=True) as shown:
        shown.skip(98)
        shown.advance(amount=10)
        assert shown.amount == 10
        assert shown.left_s == pytest.approx(shown.amount / shown.rate, rel=0.5)


class Clock:
    """A clock that a test sets."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


def test_a_day_of_work_shows_the_speed_of_the_last_minute_and_fills_no_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", Clock)
    monkeypatch.setattr(Clock, "now", 0.0)
    with (
        caplog.at_level(logging.INFO, "imprint"),
        Progress("base", total=100_000, unit="tokens") as shown,
    ):
        for step in range(86_400):
            Clock.now += 1.0 if step < 86_000 else 0.5  # twice as fast in the end
            shown.advance(amount=100)
        assert shown.recent == pytest.approx(200, rel=0.02)
        assert shown.rate == pytest.approx(100, rel=0.01)
        assert shown.left_s == pytest.approx(6800, rel=0.02)
    assert 1400 < len(caplog.messages) < 2000
    assert "base 85986/100000, 100 tokens/s, 3 h 53 min left" in caplog.messages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with caplog.at_level(logging.INFO, "imprint"):
        work()
    assert caplog.messages == []
    assert "sft" in terminal.getvalue() and "4/4" in terminal.getvalue()
