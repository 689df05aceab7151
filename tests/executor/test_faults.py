"""What goes wrong on the way: lost answers, full disks, no capacity, preemption, no account."""

import re
from collections.abc import Iterator

import pytest

from executor.kit import MODEL, Mini, copy_of_mini
from waiting import eventually

pytestmark = pytest.mark.workflow

STEPS = ["step 1 of 4", "step 2 of 4", "step 3 of 4", "step 4 of 4"]


def steps(text: str) -> list[str]:
    return re.findall(r"^step \d of \d$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mini]:
    """A run while all of the service comes and goes."""
    with copy_of_mini(tmp_path_factory.mktemp("stormy")) as mini:
        for rpc in ("VolumeGetOrCreate", "FunctionGetOutputs", "FunctionBindParams"):
            mini.cloud.fault(rpc, before="UNAVAILABLE", times=8)
        mini.cloud.fault("VolumeListFiles2", before="UNAVAILABLE", times=2)
        mini.cloud.fault("FunctionMap", after="UNAVAILABLE", times=1)
        mini.cloud.fault("AppGetLogs", drop_after=1, times=6)
        mini.cloud.http_fault("put", status=503, times=2)
        mini.cloud.http_fault("get", status=503, times=2)
        mini.start().ends()
        yield mini


def test_a_service_that_comes_and_goes_costs_only_time(stormy: Mini) -> None:
    assert (stormy.results / "report.txt").read_text() == f"report: {MODEL}"
    assert "no answer from Modal" in stormy.runs[0].said


def test_a_call_whose_answer_was_lost_runs_once(stormy: Mini) -> None:
    assert [(call.status, call.starts) for call in stormy.cloud.spawned] == [("done", 1)]


def test_a_dropped_log_stream_loses_no_line_and_repeats_none(stormy: Mini) -> None:
    assert steps(stormy.full_log()) == STEPS
    assert [steps(stormy.runs[0].said).count(step) for step in STEPS] == [1, 1, 1, 1]


def test_a_preempted_job_goes_on_where_it_was_in_the_same_call(mini: Mini) -> None:
    run = mini.at_the_gate()
    mini.cloud.preempt(0, grace_s=5)
    run.says("preempted")
    eventually("a second start", lambda: mini.cloud.spawned[0].starts == 2)
    mini.open()
    run.ends()
    (call,) = mini.cloud.spawned
    assert (call.status, call.starts) == ("done", 2)
    assert re.findall(r"going on after step \d", run.said) == ["going on after step 2"]
    assert steps(mini.full_log()) == STEPS
    assert (mini.results / "model.txt").read_text() == MODEL


def test_waiting_is_told_and_a_job_over_its_time_ends_with_its_last_words(mini: Mini) -> None:
    mini.cloud.capacity(1)
    run = mini.start("results/slow.txt")
    run.says("waits for 1 x T4")
    (call,) = mini.cloud.spawned
    assert (call.timeout, call.starts) == (60, 0)
    assert "slow: started" not in run.said
    run.says("^beginning$")
    mini.cloud.time_up()  # nobody has a minute
    told = run.ends(1)
    assert call.status == "timeout"
    assert re.search(rf"slow failed on Modal \({call.id}\): it took longer than its runtime", told)
    assert "\nbeginning\n" in told.partition("The end of .snakemake/log/modal/")[2]
    assert "It took 60.0 s" in told  # and is paid for, though it was silent


def test_a_crash_ends_with_its_status_and_last_words(mini: Mini) -> None:
    told = mini.start("results/crash.txt").ends(1)
    (call,) = mini.cloud.spawned
    assert f"crash failed on Modal ({call.id}): exit status 3" in told
    assert "\nthe last words\n" in told.partition("The end of .snakemake/log/modal/")[2]
    assert (mini.results / "logs" / "crash.log").read_text() == "the last words\n"


def test_a_full_volume_ends_the_job_and_says_so(mini: Mini) -> None:
    mini.cloud.full_after(1_000_000)
    told = mini.start("results/large").ends(1)
    (call,) = mini.cloud.spawned
    assert re.search(rf"large failed on Modal \({call.id}\): the Volume did not take", told)
    assert not (mini.results / "large").exists()


def test_without_an_account_local_rules_run_and_the_others_say_what_to_do(mini: Mini) -> None:
    nobody = {"MODAL_TOKEN_ID": "", "MODAL_TOKEN_SECRET": ""}
    told = mini.start("--keep-going", environment=nobody).ends(1)
    assert "`modal setup`" in told and "MODAL_TOKEN_ID" in told
    assert (mini.results / "data.txt").exists()
    assert not mini.cloud.spawned


def test_hardware_that_is_not_there_is_refused_before_anything_is_sent(mini: Mini) -> None:
    wrong = ("train:gpu_model=H1000", "crash:gpu=9", "slow:runtime=30000", "large:gpu=many")
    targets = ("results/model.txt", "results/crash.txt", "results/slow.txt", "results/large")
    told = mini.start("--set-resources", *wrong, "--", *targets).ends(1)
    assert re.search(r"rule train: gpu_model is 'H1000'; Modal has .*H100,", told)
    assert re.search(r"rule crash: gpu is 9; .* 1 to 8 T4", told)
    assert re.search(r"rule slow: runtime is 30000 minutes", told)
    assert re.search(r"rule large: gpu is 'many'", told)
    assert not mini.cloud.calls
    assert not mini.results.exists()


def test_a_run_that_may_cost_too_much_is_refused_before_anything_is_sent(mini: Mini) -> None:
    told = mini.start("--modal-max-usd", "5").ends(1)
    assert re.search(r"could cost \$5\.\d\d; modal-max-usd is \$5\.00", told)
    assert re.search(r"train: 1 x up to \$5\.\d\d", told)
    assert "runtime" in told
    assert not mini.cloud.calls
    assert not mini.results.exists()
