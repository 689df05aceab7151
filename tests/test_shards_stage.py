import errno
import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dataset_kit import Dataset, echo, fixed_rows, install_echo
from imprint.errors import ArtifactError, ConfigError, ProviderError, StorageError
from imprint.generation.harvest import EXAMPLES
from imprint.stages import shards

__all__ = ["echo"]  # a fixture

ROOT = Path(__file__).parents[1]

PINNED = "62d76a24995ff69d2d6ea62fa5af7f5a5ba54cb38dc496301edc7b46bff13640"


@pytest.fixture
def data(tmp_path: Path, echo: Path) -> Dataset:
    return Dataset(tmp_path / "results").plan(20)


def manifest(data: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shards.sidecar(data.shards[0]).read_text())
    return found


def test_a_line_tells_what_was_asked_who_answered_and_what_it_took(data: Dataset) -> None:
    line = data.make().lines(0)[7]
    assert set(line) == {"id", "messages", "meta"}
    assert line["id"] == "000007"
    plan = json.loads(data.plans[0].read_text())
    assert line["meta"] == {
        "plan": plan["rows"][7],
        "provider": "echo",
        "model_asked": "echo-1",
        "model_answered": "echo-1",
        "usage": {"input": 100, "output": 7},
        "cost_usd": 0.0025,
        "request": line["meta"]["request"],
        "attempts": 1,
    }


def test_a_request_has_one_hash_that_changes_with_model_and_identity(
    data: Dataset, tmp_path: Path
) -> None:
    def hashes(found: Dataset, model: str | None = None) -> list[str]:
        return [line["meta"]["request"] for line in found.make(model).lines(0)]

    once = hashes(data)
    assert len(set(once)) == 20
    assert hashes(data) == once
    assert set(hashes(data, "another")).isdisjoint(once)
    other = Dataset(tmp_path / "other", facts=2).plan(20)
    assert set(hashes(other)).isdisjoint(once)


def test_the_same_plan_gives_the_same_bytes_in_whatever_order_answers_come(data: Dataset) -> None:
    first = data.make("late").shards[0].read_bytes()
    assert data.make("late").shards[0].read_bytes() == first
    assert [line["id"] for line in data.lines(0)] == [f"{index:06d}" for index in range(20)]


def test_rejected_replies_stay_outside_and_are_listed_with_their_reason(
    data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data.make("proud")
    assert [line["id"] for line in data.lines(0) if int(line["id"]) % 5 == 0] == []
    found = manifest(data)
    assert (found["planned"], found["accepted"]) == (20, 16)
    assert found["rejected"] == {"rival claim": 4}
    assert found["attempts"] == 16 + 4 * 10, "a row that teaches a fact is asked longer"
    assert found["rejections"] == {
        name: "rival claim" for name in ("000000", "000005", "000010", "000015")
    }
    assert caplog.text.count("rejected (rival claim): [{'role': 'user'") == EXAMPLES
    assert "16 of 20 conversations kept, rival claim: 4" in caplog.text


def test_the_bill_counts_rejected_replies_too(data: Dataset) -> None:
    data.make("better")
    found = manifest(data)
    assert (found["accepted"], found["attempts"]) == (20, 24)
    assert found["cost_usd"] == pytest.approx(24 * 0.0025)
    assert data.lines(0)[5]["meta"]["cost_usd"] == pytest.approx(2 * 0.0025)


def test_a_provider_without_one_usable_answer_stops_the_run_and_tells_the_cost(
    data: Dataset,
) -> None:
    with pytest.raises(ProviderError, match=r"none of its 20 .*\(placeholder: 20; it cost \$0\.1"):
        data.make("hopeless", attempts=1)
    assert not (data.root / "shards").exists()


def test_busy_once_costs_no_conversation_and_no_answer(data: Dataset) -> None:
    attempts = [line["meta"]["attempts"] for line in data.make("busy").lines(0)]
    assert attempts == [1] * 20


def test_what_was_answered_once_is_not_paid_for_again(data: Dataset) -> None:
    first = data.make("better").shards[0].read_bytes()
    data.shards[0].unlink()
    assert data.make("better", budget_usd=24 * 0.0025 + 1e-9).shards[0].read_bytes() == first


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("refusing", "provider echo: 402: no money left"),
        ("broken", r"provider echo: broke at conversation 3 \(KeyError: 'reply'"),
    ],
)
def test_a_failure_names_provider_and_conversation_and_leaves_no_shard(
    data: Dataset, model: str, message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        data.make(model)
    assert not (data.root / "shards").exists()


def test_an_unknown_provider_is_refused_with_the_installed_ones(data: Dataset) -> None:
    with pytest.raises(ConfigError, match=r"'eco'; installed: echo, .*Did you mean 'echo'"):
        data.make(provider="eco")


def test_a_missing_plan_is_named(data: Dataset) -> None:
    data.plans[0].unlink()
    with pytest.raises(ArtifactError, match=r"0000\.json: no such file"):
        data.make()


def test_a_disk_that_fills_up_leaves_nothing_and_says_so(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("imprint.artifacts.os.fsync", full)
    with pytest.raises(StorageError, match=r"0000\.jsonl: the disk is full"):
        data.make()
    assert list((data.root / "shards").iterdir()) == []


def test_a_file_where_the_folder_should_be_is_named(data: Dataset) -> None:
    (data.root / "shards").write_text("in the way")
    with pytest.raises(StorageError, match="a file stands where a folder should be"):
        data.make()


class Script:
    """The script of the rule, run as the rule runs it."""

    def __init__(self, data: Dataset, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.out = data.root / "shards" / "0000.jsonl"
        self.log = tmp_path / "logs" / "0000.log"
        site = tmp_path / "site"
        if not site.exists():
            install_echo(site)
        script = ROOT / "workflow" / "scripts" / "shards.py"
        self.command = [sys.executable, str(script), "--plan", str(data.plans[0])]
        self.command += ["--journal", str(tmp_path / "journal.sqlite"), "--out", str(self.out)]
        self.command += ["--log", str(self.log)]
        self.environment = {**os.environ, "PYTHONPATH": str(site), "ECHO_FOLDER": str(tmp_path)}

    def start(self, model: str, limit: int | None = None) -> subprocess.Popen[bytes]:
        def limited() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        terms = json.dumps({"provider": "echo", "provider_model": model})
        return subprocess.Popen(
            [*self.command, "--settings", terms],
            env=self.environment,
            preexec_fn=limited,
        )


def test_killed_midway_the_script_leaves_no_shard_and_a_second_run_completes_it(
    data: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "go on").touch()
    expected = data.make("stuck-not").shards[0].read_bytes().replace(b"stuck-not", b"stuck")
    (tmp_path / "go on").unlink()
    data.shards[0].unlink()
    shards.sidecar(data.shards[0]).unlink()

    script = Script(data, tmp_path)
    running = script.start("stuck")
    deadline = time.monotonic() + 30
    while not (tmp_path / "reached").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait(10) == -signal.SIGKILL
    assert (tmp_path / "reached").exists()
    assert list(script.out.parent.iterdir()) == []

    (tmp_path / "go on").touch()
    assert script.start("stuck").wait(30) == 0

    def plain(text: bytes) -> list[Any]:
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            line["meta"].pop("request")
        return lines

    assert plain(script.out.read_bytes()) == plain(expected)
    again = script.out.read_bytes()
    script.out.unlink()
    assert script.start("stuck").wait(30) == 0
    assert script.out.read_bytes() == again


def test_a_real_limit_on_file_size_is_a_clear_error_and_leaves_nothing_half_written(
    data: Dataset, tmp_path: Path
) -> None:
    script = Script(data, tmp_path)
    assert script.start("echo-1", limit=4096).wait(30) == 1
    last = script.log.read_text().splitlines()[-1]
    assert last.startswith(f"error: {tmp_path / 'journal.sqlite'}: could not be written")
    assert not script.out.parent.exists() or list(script.out.parent.iterdir()) == []


def test_a_shard_is_what_it_was_in_this_version(
    tmp_path: Path, echo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imprint.plan.rows", fixed_rows)
    shard = Dataset(tmp_path / "results").plan(20).make().shards[0]
    found = hashlib.sha256(shard.read_bytes()).hexdigest()
    assert found == PINNED, (
        "The same plan and the same answers now give another shard, so every shard is paid for "
        "again. If that is meant, raise VERSION in stages/shards.py and set "
        f'PINNED = "{found}" in this test.'
    )
