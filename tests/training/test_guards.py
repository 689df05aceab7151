import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint.dataset.batch import Batch
from imprint.errors import ImprintError
from imprint.model import Model
from imprint.training import loop
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.guards import stoppable
from imprint.training.optim import Optimizers
from training import runner
from training.runner import Ramps

Change = Callable[[Gradients, int, float], float]


def broken(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let ``change`` see the step (from 1) and the loss of each backward pass, and alter it."""
    honest, steps = Gradients.backward, iter(range(1, 1000))

    def backward(self: Gradients, batch: Batch) -> float:
        return change(self, next(steps), honest(self, batch))

    monkeypatch.setattr(Gradients, "backward", backward)


def last_step(out: Path) -> int:
    state = runner.states(out).newest()
    assert state is not None
    assert all(bool(weight.isfinite().all()) for weight in state["weights"].values())
    return int(state["step"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_keeps_the_state_before(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, lambda _, step, loss: value if step == 5 else loss)
    with pytest.raises(
        ImprintError,
        match=rf"^sft: the loss is {value} at step 5 of 9. The state after step 4 is kept. Lower "
        "the learning rates of sft, or look for odd rows in its data.$",
    ):
        runner.run(tmp_path, Ramps("sft", 9), minutes=1e-9)
    assert last_step(tmp_path) == 4


@pytest.mark.parametrize(("steps", "minutes", "kept"), [(9, 1e-9, 4), (5, 1e-9, 4), (5, 9.0, 0)])
def test_a_gradient_that_is_no_number_never_reaches_a_state(
    steps: int, minutes: float, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(gradients: Gradients, step: int, loss: float) -> float:
        grad = gradients.model.lm_head.weight.grad
        assert grad is not None
        if step == 5:
            grad[7, 3] = math.inf
        return loss

    broken(monkeypatch, change)
    with pytest.raises(ImprintError, match=r"sft: the gradient is (nan|inf) at step 5"):
        runner.run(tmp_path, Ramps("sft", steps), minutes=minutes, gradient_clip=1.0)
    assert last_step(tmp_path) == kept if kept else not runner.states(tmp_path).paths()


def test_weights_that_are_no_numbers_are_neither_kept_nor_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(gradients: Gradients, step: int, loss: float) -> float:
        if step == 4:
            with torch.no_grad():
                gradients.model.embedding[310, 3] = math.nan  # no batch looks this token up
        return loss

    broken(monkeypatch, change)
    with pytest.raises(ImprintError, match="base: the largest weight is nan at step 6 of 6"):
        runner.run(tmp_path, Ramps("base", 6), minutes=1e-9)
    assert last_step(tmp_path) == 3


@pytest.mark.parametrize("odd_steps", [4, 5])
def test_a_loss_that_leaps_and_stays_there_stops_and_keeps_the_state_before(
    odd_steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(gradients: Gradients, step: int, loss: float) -> float:
        odd = 60 < step <= 60 + odd_steps or step == 80
        return loss + 128 * 5.8 if odd else loss  # nats of a batch

    data = Ramps("base", 90)
    whole, _ = runner.run(tmp_path / "whole", data)
    broken(monkeypatch, change)
    if odd_steps < 5:  # odd batches, which stop nothing
        model, _ = runner.run(tmp_path, data, minutes=1e-9)
        assert all(map(torch.equal, model.parameters(), whole.parameters()))
        assert last_step(tmp_path) == 90
        return
    with pytest.raises(
        ImprintError,
        match=r"base: the loss leapt to \d+\.\d+ by step 65 of 90 and stayed there for 5 steps; "
        r"before, its median was \d+\.\d+. The state after step 60 is kept. .* raise watch.spike",
    ):
        runner.run(tmp_path, data, minutes=1e-9)
    assert last_step(tmp_path) == 60


@pytest.mark.parametrize(
    ("minutes", "kept"), [(1e-9, r"/.*/step-000000004\.pt is kept"), (9.0, "No state is kept")]
)
def test_memory_that_is_full_behind_the_gradients_is_an_error_that_names_step_and_state(
    minutes: float, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Optimizers.step

    def step(self: Optimizers, *, step: int, **given: Any) -> float | None:
        if step == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(self, step=step, **given)

    monkeypatch.setattr(Optimizers, "step", step)
    with pytest.raises(
        ImprintError,
        match=rf"^sft: the GPU's memory is full at step 5 of 9\. {kept}\. .* model\.depth or",
    ):
        runner.run(tmp_path, Ramps("sft", 9), minutes=minutes)
    assert bool(runner.states(tmp_path).paths()) == (minutes < 1)


def test_memory_that_is_full_as_the_model_is_judged_is_an_error_with_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Model, "loss", loss)
    with pytest.raises(ImprintError, match=r"memory is full as the model is judged\. .* that noth"):
        loop.evaluate(
            Model(runner.CONFIG, seed=1),
            Ramps("sft", 2),
            ranks=Ranks(0, 1, torch.device("cpu")),
        )


def test_ctrl_c_is_a_wish_to_stop_while_training_only() -> None:
    with stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.wanted and stop.status == 130
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
