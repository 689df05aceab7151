"""What a run may cost, and what it has cost."""

import json
import math
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_modal.hardware import Hardware
from snakemake_executor_plugin_modal.money import RATES, Budget, Receipt, dearest, keep, rate


def test_a_container_costs_its_gpus_cores_and_memory() -> None:
    assert rate("", 0, 0) == 0
    assert rate("L40S:1", 0, 0) == RATES["L40S"]
    assert rate("H100:8", 0, 0) == 8 * RATES["H100"]
    assert rate("", 4, 8192) == pytest.approx(4 * 0.0000131 * 3600 + 8 * 0.00000222 * 3600)


def test_of_alternatives_the_dearest_counts_and_a_chosen_region_costs_more() -> None:
    hardware = Hardware("A100-40GB:1", 1, 1024, 60)
    usd = rate("H100:1", 1, 1024)
    assert dearest(hardware, ["A100-40GB:1", "H100:1"], []) == usd
    assert dearest(hardware, ["H100:1"], ["us"]) == 1.5 * usd
    assert dearest(hardware, ["H100:1"], ["us", "eu-west"]) == 1.75 * usd


def test_a_run_that_could_cost_more_is_refused_with_the_figures_of_each_rule() -> None:
    budget = Budget(100.0)
    budget.check([("base", 90.0), ("sft", 10.0)])
    with pytest.raises(WorkflowError) as refused:
        budget.check([("base", 90.0), ("sft", 10.0), ("sft", 5.0)])
    told = str(refused.value)
    assert "could cost $105.00; modal-max-usd is $100.00" in told
    assert "base: 1 x up to $90.00" in told and "sft: 2 x up to $10.00" in told
    assert "runtime" in told


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_that_is_none_is_refused(limit: float) -> None:
    with pytest.raises(WorkflowError, match="must be above 0"):
        Budget(limit).check([])


def test_retries_end_at_the_limit_and_what_was_not_used_is_free_again() -> None:
    budget = Budget(10.0)
    budget.reserve("first", 6.0)
    with pytest.raises(WorkflowError, match=r"with \$6\.00 spent or set aside"):
        budget.reserve("second", 6.0)
    budget.settle("first", 1.0)
    budget.reserve("second", 6.0)
    budget.settle("second", 6.0)
    with pytest.raises(WorkflowError, match=r"with \$7\.00 spent"):
        budget.reserve("second", 6.0)


def test_without_a_limit_nothing_is_refused() -> None:
    budget = Budget(None)
    budget.check([("base", 1e6)])
    budget.reserve("base", 1e6)


def test_each_call_adds_a_line(tmp_path: Path) -> None:
    for call in ("fc-1", "fc-2"):
        keep(Receipt("sft", ["sft.pt"], call, "H100:8", 16, 1024, 2.0, 0.02, "done"), tmp_path)
    lines = (tmp_path / "receipts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["call"] for line in lines] == ["fc-1", "fc-2"]
