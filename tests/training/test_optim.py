import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imprint.settings import Optimizer
from imprint.training.optim import AdamW, Muon, orthogonal, schedule


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


def test_muon_treats_each_matrix_as_if_it_were_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = [(8, 8), (8, 8), (32, 8), (8, 32)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    grads = [torch.randn(shape, generator=generator) for shape in shapes]

    def moved(chosen: list[int]) -> list[torch.Tensor]:
        weights = [start[number].clone().requires_grad_() for number in chosen]
        for weight, number in zip(weights, chosen, strict=True):
            weight.grad = grads[number].clone()
        muon = Muon(weights, lr=0.1, weight_decay=0.1, dtype=torch.float32)
        muon.step(1.0)
        return [weight.detach() for weight in weights]

    together = moved([0, 1, 2, 3])
    for number in range(4):
        torch.testing.assert_close(together[number], moved([number])[0])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_an_optimizer_goes_on_from_its_state_to_the_bit(kind: str) -> None:
    def fresh() -> tuple[torch.Tensor, Muon | AdamW]:
        weight = torch.ones(4, 6, requires_grad=True)
        if kind == "muon":
            return weight, Muon([weight], lr=0.1, weight_decay=0.0, dtype=torch.float32)
        return weight, AdamW([(weight, 0.1)])

    def steps(weight: torch.Tensor, optimizer: Muon | AdamW, numbers: range) -> None:
        for number in numbers:
            weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
            optimizer.step(1.0)

    weight, optimizer = fresh()
    steps(weight, optimizer, range(3))
    again, other = fresh()
    again.data.copy_(weight.data)
    other.restore(optimizer.state())
    steps(weight, optimizer, range(3, 6))
    steps(again, other, range(3, 6))
    assert torch.equal(weight, again)


def test_adamw_does_what_torch_does() -> None:
    ours, theirs = (torch.ones(4, 6, requires_grad=True) for _ in range(2))
    adamw = AdamW([(ours, 0.1)])
    reference = torch.optim.AdamW([theirs], lr=0.1, betas=(0.8, 0.95), eps=1e-10, weight_decay=0)
    for number in range(5):
        grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(number))
        ours.grad, theirs.grad = grad.clone(), grad.clone()
        adamw.step(1.0)
        reference.step()
    torch.testing.assert_close(ours, theirs)
