"""What a job asks for, in Modal's terms."""

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_modal.hardware import DAY_S, GPUS, Hardware, alternatives, asked
from snakemake_executor_plugin_modal.money import RATES


def test_the_resources_that_other_executors_use_become_a_container_of_modals() -> None:
    resources = {"gpu": 8, "gpu_model": "h100", "runtime": 120, "mem_mb": 4000, "mem_mib": 3815}
    assert asked(resources, 16) == Hardware("H100:8", 16, 3815, 7200)


def test_a_job_that_asks_for_nothing_gets_the_least_and_a_day() -> None:
    assert asked({"tmpdir": "/tmp"}, 1) == Hardware("", 1, 128, DAY_S)


def test_what_is_not_known_yet_counts_as_not_set() -> None:
    assert asked({"gpu": "<TBD>", "mem_mib": "<TBD>", "runtime": 1}, 1).gpu == ""


def test_three_days_are_three_attempts_of_a_day() -> None:
    long = asked({"runtime": 3 * 24 * 60}, 1)
    assert (long.timeout_s, long.attempts, long.hours) == (DAY_S, 3, 72)


@pytest.mark.parametrize(
    ("resources", "threads", "message"),
    [
        ({"gpu": 1, "gpu_model": "H1000"}, 1, "gpu_model is 'H1000'; Modal has T4, L4, A10, "),
        ({"gpu": 9, "gpu_model": "H100"}, 1, "gpu is 9; a container on Modal has 1 to 8 H100."),
        ({"gpu": 8, "gpu_model": "A10"}, 1, "gpu is 8; a container on Modal has 1 to 4 A10."),
        ({"gpu": 1}, 1, "gpu is 1, but gpu_model is not set; Modal has T4, "),
        ({"gpu": "H100:8"}, 1, "it must be a whole number. Name the model in gpu_model."),
        ({"runtime": 11 * 24 * 60 + 1}, 1, "runtime is 15841 minutes; Modal runs a job for 1 to"),
        ({"runtime": 0}, 1, "runtime is 0 minutes"),
        ({"mem_mib": 400_000, "mem_mb": 419_430}, 1, "mem_mb is 419430; a container on Modal has"),
        ({}, 65, "threads is 65; a container on Modal has 1 to 64 cores."),
    ],
)
def test_what_modal_has_not_got_is_refused_by_name(
    resources: dict[str, object], threads: int, message: str
) -> None:
    with pytest.raises(WorkflowError) as refused:
        asked(resources, threads)
    assert message in str(refused.value)


def test_fallbacks_have_as_many_gpus_and_none_is_taken_twice() -> None:
    assert alternatives("H100:8", ["h200", "H100"]) == ["H100:8", "H200:8"]
    assert alternatives("", ["H200"]) == [""]
    with pytest.raises(WorkflowError, match="1 to 4 A10"):
        alternatives("H100:8", ["A10"])


def test_every_gpu_has_a_rate() -> None:
    assert GPUS.keys() == RATES.keys()
