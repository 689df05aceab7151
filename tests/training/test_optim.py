from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from imprint.model import Model, ModelConfig
from imprint.scale import Optimizer, Training
from imprint.training.distributed import Ranks
from imprint.training.optim import NEWTON_SCHULZ, Optimizers, orthogonal, schedule

CONFIG = ModelConfig(depth=1, vocabulary=300, context=32)


def settings(**values: float) -> Optimizer:
    return Optimizer(**{"warmup": 0.1, "cooldown": 0.5, "final": 0.1, **values})


def test_the_rate_rises_stays_and_falls() -> None:
    shares = [schedule(settings(), step=step, steps=100) for step in range(100)]
    assert shares[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert set(shares[10:50]) == {1.0}
    assert shares[50] == 1.0 and shares[75] == pytest.approx(0.55)
    assert shares[99] == pytest.approx(0.1 + 0.9 / 50)


@given(
    warmup=st.floats(0, 1),
    cooldown=st.floats(0, 1),
    final=st.floats(0, 1),
    steps=st.integers(1, 50),
)
def test_every_step_has_a_rate_between_nothing_and_the_peak(
    warmup: float, cooldown: float, final: float, steps: int
) -> None:
    shape = settings(warmup=warmup, cooldown=cooldown, final=final)
    for step in range(steps):
        assert 0 < schedule(shape, step=step, steps=steps) <= 1


def test_muon_moves_a_matrix_by_its_singular_vectors() -> None:
    stack = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(1))
    sizes = torch.linalg.svdvals(orthogonal(stack, dtype=torch.float32))
    assert sizes.min() > 0.5 and sizes.max() < 1.5


def optimized(**values: Any) -> tuple[Model, Optimizers]:
    """A model whose weights are all in motion, and what moves them at a steady rate."""
    model = Model(CONFIG, seed=1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    given = Training(
        **{"embedding_lr": 0.2, "head_lr": 0.1, "warmup": 0.0, "cooldown": 0.0, **values}
    )
    alone = Ranks(0, 1, torch.device("cpu"))
    return model, Optimizers(model, given, ranks=alone, dtype=torch.float32)


def gradients(model: Model, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


def moved(model: Model, optimizers: Optimizers, numbers: range) -> list[Tensor]:
    for number in numbers:
        gradients(model, number)
        optimizers.step(step=number, steps=1000)
    return [weight.detach() for weight in model.parameters()]


def test_three_steps_are_those_of_the_optimizers_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # Muon's, inside
    model, optimizers = optimized(matrix_lr=0.05, weight_decay=0.1, rate=0.5)
    copy, _ = optimized()
    muon = torch.optim.Muon(
        list(copy.matrices()),
        lr=0.025,
        weight_decay=0.1,
        momentum=0.85,
        ns_coefficients=NEWTON_SCHULZ,
        ns_steps=5,
        nesterov=True,
        adjust_lr_fn="original",
    )
    adamw = torch.optim.AdamW(
        [
            {"params": [copy.embedding], "lr": 0.1},
            {"params": [copy.lm_head.weight], "lr": 0.05},
        ],
        betas=(0.8, 0.95),
        eps=1e-10,
        weight_decay=0,
    )
    ours = moved(model, optimizers, range(3))
    for number in range(3):
        gradients(copy, number)
        muon.step()  # type: ignore[no-untyped-call]
        adamw.step()
    torch.testing.assert_close(ours, list(copy.parameters()), atol=1e-5, rtol=1e-4)


def test_training_goes_on_from_its_state_to_the_bit() -> None:
    model, optimizers = optimized(momentum=0.95)
    moved(model, optimizers, range(3))
    again, others = optimized(momentum=0.95)
    again.load_state_dict(model.state_dict())
    state = optimizers.state()
    expected = moved(model, optimizers, range(3, 6))
    others.restore(state)
    assert all(map(torch.equal, expected, moved(again, others, range(3, 6))))


@pytest.mark.parametrize(("step", "momentum"), [(0, 0.85), (150, 0.9), (300, 0.95), (900, 0.95)])
def test_momentum_rises_over_the_first_steps(step: int, momentum: float) -> None:
    model, optimizers = optimized(momentum=0.95)
    gradients(model, 1)
    grad = next(model.matrices()).grad
    assert grad is not None
    grad = grad.clone()
    optimizers.step(step=step, steps=1000)
    kept = optimizers.state()[0]["momentum"][0]
    torch.testing.assert_close(kept, (1 - momentum) * grad)


def test_a_long_gradient_is_scaled_down_and_its_length_is_told() -> None:
    model, optimizers = optimized(gradient_clip=2.0)
    gradients(model, 1)
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    length = float(torch.cat([grad.flatten() for grad in grads]).norm())
    first = next(model.matrices()).grad
    assert first is not None
    first = first.clone()
    assert optimizers.step(step=0, steps=9) == pytest.approx(length)
    torch.testing.assert_close(
        optimizers.state()[0]["momentum"][0], 0.15 * first * 2 / length, atol=1e-6, rtol=1e-4
    )
    free, others = optimized()
    gradients(free, 1)
    assert others.step(step=0, steps=9) is None
    gradients(free, 1)
    assert others.step(step=1, steps=9, norm=True) == pytest.approx(length)
