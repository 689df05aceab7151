"""The life of a job on Modal: first runs, kills, changes, interrupts, several at once."""

import json
import re
import signal
import time

import pytest

from executor.kit import MODEL, Mini
from snakemake_executor_plugin_modal import money
from waiting import eventually

pytestmark = pytest.mark.workflow


def test_a_first_run_sends_away_what_asks_for_a_gpu_and_nothing_is_run_again(mini: Mini) -> None:
    told = mini.start().ends()
    assert (mini.results / "model.txt").read_text() == MODEL
    assert (mini.results / "report.txt").read_text() == f"report: {MODEL}"
    (call,) = mini.cloud.spawned
    assert (call.gpu, call.starts) == ("H100:8", 1)
    assert (call.timeout, call.memory) == (600, 954)  # 10 min; 1000 MB in MiB

    steps = [f"step {n} of 4" for n in (1, 2, 3, 4)]
    assert [line for line in mini.full_log().splitlines() if line in steps] == steps
    assert (mini.results / "logs" / "train.log").read_text().splitlines() == steps
    assert (mini.results / "benchmarks" / "train.tsv").read_text().startswith("s\t")
    assert "step 4 of 4" in told and call.id in told

    # What it cost is told and written down: mostly eight times the GPU's rate.
    path = mini.root / ".snakemake" / "modal" / "receipts.jsonl"
    (receipt,) = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (receipt["rule"], receipt["gpu"], receipt["call"]) == ("train", "H100:8", call.id)
    assert receipt["usd"] == pytest.approx(receipt["seconds"] * 8 * 3.95 / 3600, rel=0.05)
    assert money.dollars(receipt["usd"]) in told

    before = {path: path.stat().st_mtime_ns for path in mini.results.rglob("*")}
    rpcs = sum(mini.cloud.calls.values())
    for start in (mini.start, mini.here):
        assert "Nothing to be done" in start().ends()
    assert sum(mini.cloud.calls.values()) == rpcs
    assert {path: path.stat().st_mtime_ns for path in mini.results.rglob("*")} == before


def test_after_a_local_run_nothing_is_run_on_modal(mini: Mini) -> None:
    mini.here().ends()
    assert (mini.results / "model.txt").read_text() == MODEL
    assert "Nothing to be done" in mini.start().ends()
    assert not mini.cloud.calls


def test_after_a_kill_the_call_is_followed_and_what_ended_meanwhile_is_fetched(mini: Mini) -> None:
    mini.at_the_gate().kill()
    mini.unlock()
    (call,) = mini.cloud.spawned
    second = mini.start()
    second.says(call.id)
    second.kill()
    mini.unlock()
    mini.open()
    eventually("the call ends", lambda: call.status == "done")
    assert not (mini.results / "model.txt").exists()
    mini.start("--rerun-incomplete").ends()  # which makes Snakemake itself forget the call
    assert [call.starts for call in mini.cloud.spawned] == [1]
    assert (mini.results / "report.txt").read_text() == f"report: {MODEL}"
    assert re.findall(r"^step (\d)", mini.full_log(), re.MULTILINE) == ["1", "2", "3", "4"]


def test_changed_params_or_inputs_cancel_the_old_call_and_start_from_nothing(mini: Mini) -> None:
    mini.at_the_gate().kill()
    changes = {"config.yaml": "steps: 3\n", "words.txt": "sea\n"}
    for number, (name, text) in enumerate(changes.items()):
        mini.unlock()
        (mini.root / name).write_text(text)
        run = mini.start()
        run.says("cancelling that(.*\\n)*.*step 2 of 3")
        assert len(mini.cloud.spawned) == number + 2
        if number == 0:
            run.kill()
    mini.open()
    told = run.ends()
    assert [call.status for call in mini.cloud.spawned] == ["cancelled", "cancelled", "done"]
    assert (mini.results / "model.txt").read_text() == "3 steps on ['sea']\n"
    assert "going on" not in told


def test_detached_a_call_survives_the_interrupt_that_else_cancels_it(mini: Mini) -> None:
    first = mini.at_the_gate("--modal-detach")
    (call,) = mini.cloud.spawned
    first.send(signal.SIGINT)
    assert f"left running as {call.id}" in first.ends(1)
    assert call.status == "running"

    second = mini.start()
    second.says(f"taking up {call.id}")
    second.send(signal.SIGINT)
    assert f"{call.id} cancelled" in second.ends(1)
    eventually("cancelled", lambda: call.status == "cancelled")

    mini.open()
    assert "going on after step 2" in mini.start().ends()
    assert [call.status for call in mini.cloud.spawned] == ["cancelled", "done"]


def test_two_jobs_run_at_once_each_on_its_own_hardware(mini: Mini) -> None:
    mini.gate.mkdir()
    mini.start("pairs").ends()
    assert sorted(call.gpu for call in mini.cloud.spawned) == ["A10:1", "H100:8"]
    assert mini.cloud.calls["AppPublish"] == 1
    assert [(mini.results / "pair" / f"{n}.txt").read_text() for n in (1, 2)] == ["1\n", "2\n"]


def test_a_failed_job_is_tried_again_in_a_call_of_its_own_where_it_may_run(mini: Mini) -> None:
    where = ("--modal-gpu-fallbacks", "L4", "A10", "--modal-region", "us-east", "eu-west")
    mini.start(*where, "--", "results/flaky.txt").ends()
    first, second = mini.cloud.spawned
    # All that the plugin does between two jobs: 0.3 s where the processor is free.
    assert second.created_at - first.finished_at < 3
    for call in (first, second):
        assert call.function.gpus == ["T4:1", "L4:1", "A10:1"]
        assert call.region == ("us-east", "eu-west")
    assert (mini.results / "flaky.txt").read_text() == "fine\n"


def test_more_jobs_than_a_connection_takes_requests_are_started_and_cancelled_together(
    mini: Mini,
) -> None:
    mini.cloud.capacity(600)
    run = mini.start("crowd", "--local-cores", "1", "--jobs", "150")
    beside = [mini.results / "beside" / f"{n}.txt" for n in range(8)]
    eventually("local jobs", lambda: all(path.exists() for path in beside), timeout_s=30)
    eventually("all calls", lambda: len(mini.cloud.spawned) == 110, timeout_s=60)
    interrupted = time.monotonic()
    run.send(signal.SIGINT)
    run.ends(1)
    assert time.monotonic() - interrupted < 15
    assert {call.status for call in mini.cloud.spawned} == {"cancelled"}
    assert mini.cloud.calls["AppPublish"] == 1
