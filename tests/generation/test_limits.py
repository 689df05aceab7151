"""What the provider's limits ask for: the pace alone, then against a server that has limits."""

import heapq
import sqlite3
import time
from pathlib import Path

import pytest

from generation.kit import MODEL, Shard, over, query, rows, usable
from imprint.errors import ProviderBusy, ProviderError
from imprint.generation import pacing
from imprint.generation.pacing import Pace, backoff_s
from imprint.providers.openai import OpenAI
from imprint.providers.openrouter import OpenRouter
from stubs.server import Stub


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "stub-key")
    monkeypatch.setenv("OPENAI_API_KEY", "stub-key")


class Simulated:
    """A server of ``cap`` requests at once and ``latency`` seconds, in a time of its own."""

    def __init__(self, pace: Pace, cap: int, *, latency: float = 1.0) -> None:
        self.pace, self.cap, self.latency = pace, cap, latency
        self.now = 1000.0
        self.flying: list[tuple[float, float, bool]] = []
        """A heap: when it comes back, when it was sent, whether it was refused."""
        self.served = self.refused = 0
        self.held: list[float] = []

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            while len(self.flying) < int(self.pace.allowed) and self.now >= self.pace.resume:
                refused = sum(not known[2] for known in self.flying) >= self.cap
                back = self.now + (0.01 if refused else self.latency)
                heapq.heappush(self.flying, (back, self.now, refused))
            if not self.flying:
                self.now = self.pace.resume
                continue
            self.now, sent, refused = heapq.heappop(self.flying)
            if refused:
                self.refused += 1
                self.pace.refused(sent=sent, now=self.now, wait_s=None)
            else:
                self.served += 1
                self.pace.served()
                self.held.append(self.pace.allowed)


def test_without_refusals_the_pace_stays_at_its_most() -> None:
    server = Simulated(Pace(most=64), cap=64)
    server.run(60)
    assert server.pace.allowed == 64
    assert server.refused == 0


@pytest.mark.parametrize("cap", [3, 20, 50])
def test_the_pace_settles_near_what_the_server_takes(cap: int) -> None:
    server = Simulated(Pace(most=64), cap=cap)
    server.run(60)
    settled = server.held[len(server.held) // 2 :]
    assert 0.6 * cap <= sum(settled) / len(settled) <= 1.1 * cap + 1
    server.served = server.refused = 0
    server.run(120)
    assert server.served >= 0.7 * cap * 120
    assert server.refused <= 0.4 * server.served


def test_the_pace_rises_again_when_the_server_takes_more() -> None:
    server = Simulated(Pace(most=64), cap=5)
    server.run(60)
    server.cap = 64
    server.run(300)
    assert server.pace.allowed > 55


def test_a_burst_of_refusals_halves_the_pace_once() -> None:
    pace = Pace(most=64)
    for _ in range(40):
        pace.refused(sent=10.0, now=10.2, wait_s=None)
    assert pace.allowed == 32


def test_a_lone_refusal_is_no_limit() -> None:
    pace = Pace(most=64)
    for _ in range(10):
        pace.refused(sent=10.0, now=10.2, wait_s=5.0)
        for _ in range(pacing.WINDOW // 2):
            pace.served()
    assert (pace.allowed, pace.resume) == (64, 0)


def test_a_limit_that_names_a_wait_stops_everything_until_then() -> None:
    pace = Pace(most=64)
    for _ in range(3):
        pace.refused(sent=10.0, now=10.2, wait_s=30.0)
    assert pace.resume == 40.2


def test_at_one_request_at_a_time_waits_grow_until_an_answer_comes() -> None:
    pace, now, waits = Pace(most=1), 100.0, []
    for _ in range(6):
        pace.refused(sent=now, now=now, wait_s=None)
        waits.append(pace.resume - now)
        now = pace.resume
    assert all(later > earlier / 1.01 for earlier, later in zip(waits, waits[2:], strict=False))
    assert waits[-1] > 8 * waits[0]
    pace.served()
    pace.refused(sent=now, now=now, wait_s=None)
    assert pace.resume - now <= pacing.FIRST_S


def test_workers_share_a_pace_until_it_is_old() -> None:
    one, other = Pace(most=64), Pace(most=64)
    for _ in range(3):
        one.refused(sent=5000.0, now=5000.2, wait_s=None)
    other.load(one.shared(), 5001.0)
    assert other.allowed == 32
    fresh = Pace(most=64)
    fresh.load(one.shared(), 5000.2 + pacing.FORGOTTEN_S)
    assert fresh.allowed == 64
    small = Pace(most=4)
    small.load(one.shared(), 5001.0)
    assert small.allowed == 4


@pytest.mark.parametrize("tries", range(1, 12))
def test_waits_double_up_to_a_minute_with_jitter(tries: int) -> None:
    most = min(60.0, 0.25 * 2 ** (tries - 1))
    found = [backoff_s(tries, None) for _ in range(50)]
    assert most / 2 <= min(found) < max(found) <= most
    assert all(7.0 <= backoff_s(tries, 7.0) <= 7.7 for _ in range(50))


def test_a_cap_below_in_flight_costs_no_conversation(book: Path) -> None:
    with Stub(latency=0.05, cap=20, kinds=("rate-limit-bare",), retry_after=0.1) as stub:
        started = time.monotonic()
        ends = over(stub, rows(400), book, in_flight=64)
        seconds = time.monotonic() - started
        count = stub.count
    assert usable(ends) == 400
    assert count.peak == 20
    assert max(count.answered_to.values()) <= 2, "the probe and a few answers that the door refuses"
    allowed = query(book, "SELECT value FROM notes WHERE name LIKE 'pace of%'")[0][0]
    assert 6 <= float(allowed.strip("[").split(",")[0]) <= 30
    assert seconds < 5 * 400 / 20 * 0.05


def test_a_quota_per_second_costs_no_conversation(book: Path) -> None:
    with Stub(latency=0.02, per_second=50, retry_after=0.2) as stub:
        ends = over(stub, rows(150), book, kind=OpenAI, in_flight=64)
        count = stub.count
    assert usable(ends) == 150
    assert count.faults["quota"] < 150


def test_retry_after_is_heeded_by_everything(book: Path) -> None:
    with Stub(latency=0.01, per_second=30, retry_after=1.0) as stub:
        ends = over(stub, rows(60), book, in_flight=8)
        count = stub.count
    assert usable(ends) == 60
    assert count.faults["quota"] <= 16, "who waits as told is hardly refused"


def test_two_processes_share_the_bound_and_the_journal(tmp_path: Path) -> None:
    with Stub(latency=0.1) as stub:
        shards = [Shard(tmp_path, stub, count=80, start=start, in_flight=16) for start in (0, 80)]
        processes = [shard.start() for shard in shards]
        assert [process.wait(60) for process in processes] == [0, 0]
        count = stub.count
    assert [len(shard.lines) for shard in shards] == [80, 80]
    assert count.peak == 16
    assert sum(count.others.values()) == 0
    assert query(shards[0].journal, "SELECT count(*) FROM notes WHERE name LIKE 'probe%'") == [(1,)]


def test_two_processes_with_the_same_rows_pay_once(tmp_path: Path) -> None:
    with Stub(latency=0.05) as stub:
        one, other = (Shard(tmp_path, stub, count=60, in_flight=16) for _ in range(2))
        other.command[other.command.index("--out") + 1] = str(tmp_path / "other.jsonl")
        other.command[other.command.index("--log") + 1] = str(tmp_path / "other.log")
        processes = [shard.start() for shard in (one, other)]
        assert [process.wait(60) for process in processes] == [0, 0]
        count = stub.count
    assert (tmp_path / "other.jsonl").read_bytes() == one.out.read_bytes()
    assert set(count.answered_to.values()) == {1}


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("per-day", OpenRouter, r"The day's quota is used up; it resets at .* UTC"),
        ("per-day", OpenAI, r"The day's quota is used up"),
        ("no-credit", OpenRouter, "answered 402 .*Add credit"),
        ("no-quota", OpenAI, "answered 429 .*Add credit"),
    ],
)
def test_what_waiting_does_not_mend_stops_at_once(
    book: Path, fault: str, kind: type[OpenAI], message: str
) -> None:
    script = ("ok",) * 21 + (fault,) * 100
    with Stub(latency=0.02, script=script) as stub:
        with pytest.raises(ProviderError, match=message) as caught:
            over(stub, rows(200), book, kind=kind, in_flight=10)
        count = stub.count
    assert not isinstance(caught.value, ProviderBusy)
    assert "very answer so far is kept" in str(caught.value)
    assert count.answered == 21
    assert count.received <= 21 + 2 * 10
    assert query(book, "SELECT count(*) FROM answers") == [(20,)]


def test_a_wrong_key_is_told_with_the_first_request(book: Path) -> None:
    with Stub(key="another") as stub:
        with pytest.raises(ProviderError, match=r"answered 401 .* Check the key in OPENROUTER"):
            over(stub, rows(200), book)
        assert stub.count.received == 1


def test_a_provider_that_only_says_503_is_given_up(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "FIRST_S", 0.002)
    with Stub(script=("ok",) * 11 + ("overloaded-503",) * 1000) as stub:
        with pytest.raises(ProviderBusy, match=r"8 attempts; .* answered 503 .*Run the same"):
            over(stub, rows(50), book, in_flight=5)
        assert stub.count.answered == 11
    with Stub(script=("overloaded-503",) * 1000) as stub:
        with pytest.raises(ProviderBusy, match=r"no answer to the probe in 5 attempts; .* 503"):
            over(stub, rows(50), tmp_journal(book))
        assert stub.count.received == 5


def tmp_journal(book: Path) -> Path:
    return book.with_name("other.sqlite")


def test_a_probe_that_meets_trouble_is_asked_again(book: Path) -> None:
    script = ("overloaded-503", "reset", "rate-limit")
    with Stub(script=script, retry_after=0.1) as stub:
        assert usable(over(stub, rows(5), book)) == 5
    db = sqlite3.connect(book)
    name = db.execute("SELECT name FROM notes WHERE value = '\"json_schema\"'").fetchone()[0]
    assert db.execute("SELECT key FROM lost").fetchall() == [(name,)]
    db.close()
    assert name == f"probe of {stub.base('openrouter')} {MODEL}"
