"""A process that is killed, told to stop, or out of disk; a server that bills what it sent."""

import random
import resource
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from generation.kit import Shard, money, prompts, query, rows
from stubs.server import Stub

COUNT = 240


def after(stub: Stub, requests: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the stub has got so many requests."""
    deadline = time.monotonic() + 20
    while stub.count.received < requests and time.monotonic() < deadline:
        assert process.poll() is None, "it ended too early"
        time.sleep(0.005)


def test_killed_ten_times_a_run_pays_twice_only_for_what_was_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "stub-key")
    dice, killed, flying = random.Random(4), Counter[str](), []
    with Stub(latency=0.05, bills_lost=True, price=(0.1, 0.4)) as stub:
        shard = Shard(tmp_path, stub, count=COUNT, in_flight=12)
        names = prompts(stub, rows(COUNT))
        for _ in range(10):
            process = shard.start()
            after(stub, stub.count.received + dice.randrange(2, 24), process)
            time.sleep(dice.random() * 0.05)
            process.kill()
            assert process.wait(10) == -signal.SIGKILL
            keys = [key for (key,) in query(shard.journal, "SELECT key FROM flights")]
            flying.append(len(keys))
            killed.update(names.get(key, "probe") for key in keys)
            assert not shard.out.exists()
        assert shard.start().wait(30) == 0
        count = stub.count
    assert [line["id"] for line in shard.lines] == [f"{index:06d}" for index in range(COUNT)]
    assert sum(flying) > 50
    assert max(flying) <= 12
    for name, times in count.answered_to.items():
        assert times <= 1 + killed[name]
    answers = query(shard.journal, "SELECT count(*) FROM answers")[0][0]
    assert count.answered <= answers + sum(flying) + 1, "and a probe"
    found = money(shard.journal)
    assert found["lost"] == sum(flying)
    assert found["flying"] == 0
    assert found["flying_usd"] == pytest.approx(0, abs=1e-12)
    assert count.cost <= found["spent"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_a_run_waits_for_what_is_under_way_and_keeps_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    with Stub(latency=0.3) as stub:
        shard = Shard(tmp_path, stub, count=COUNT, in_flight=10)
        process = shard.start()
        after(stub, 15, process)
        process.send_signal(number)
        assert process.wait(10) == 1
        count = stub.count
    assert shard.last.endswith("error: Interrupted. What was answered is kept; run again to go on.")
    assert count.received == count.answered
    assert query(shard.journal, "SELECT count(*) FROM answers") == [(count.answered - 1,)]
    assert money(shard.journal)["lost"] == 0
    assert not shard.out.exists()


def test_told_to_stop_while_it_probes_a_run_ends_at_once(tmp_path: Path) -> None:
    with Stub(script=("hang",), bills_lost=True) as stub:
        shard = Shard(tmp_path, stub, count=10)
        process = shard.start()
        after(stub, 1, process)
        process.terminate()
        assert process.wait(5) == 1
    assert shard.last.startswith("error: Interrupted.")
    assert money(shard.journal)["lost"] == 1
    assert stub.count.cost <= money(shard.journal)["spent"]


def test_a_disk_that_fills_up_midway_is_told_and_costs_what_was_under_way(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    with Stub(latency=0.02) as stub:
        shard = Shard(tmp_path, stub, count=COUNT, in_flight=8)
        assert shard.start(preexec_fn=limited).wait(60) == 1
        assert shard.last.startswith(f"error: {shard.journal}: could not be written (")
        assert "Free some space" in shard.last
        kept = query(shard.journal, "SELECT count(*) FROM answers")[0][0]
        assert kept > 5
        assert shard.start().wait(60) == 0
        count = stub.count
    assert len(shard.lines) == COUNT
    assert count.answered <= COUNT + 1 + money(shard.journal)["lost"]
    assert 1 <= money(shard.journal)["lost"] <= 8


def test_the_key_is_in_no_file_and_in_no_message(tmp_path: Path) -> None:
    key = "fake-key-for-tests-only"
    with Stub(key=key, rate=0.2, latency=0.02, retry_after=0.1) as stub:
        shard = Shard(tmp_path, stub, count=40, timeout_s=1.0)
        assert shard.start().wait(60) == 0
        failing = Shard(tmp_path, stub, count=40, start=40)
        process = failing.start(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        after(stub, stub.count.received + 5, process)
        stub.settings.key = "another"  # from now on it is wrong
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "Check the key in OPENROUTER_API_KEY" in failing.last
    assert key.encode() not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"journal.sqlite", "0000.jsonl", "0000.log", "0040.log"} <= {path.name for path in files}
    assert [path for path in files if key.encode() in path.read_bytes()] == []
