import pytest
import torch
from torch.nn import functional

from imprint import cross_entropy, fused
from imprint.cross_entropy import softcapped_cross_entropy
from reference import numbers


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the operations of either, on a CPU."""
    monkeypatch.setattr(fused, "on_gpu", lambda _: request.param == "gpu")


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.usefixtures("device")
def test_the_loss_and_its_derivative_are_right(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNK", "CHUNK_GPU"):
        monkeypatch.setattr(cross_entropy, name, chunk)
    x, head, labels = numbers(7, 4), numbers(11, 4), torch.arange(7)
    assert torch.autograd.gradcheck(
        lambda x, head: softcapped_cross_entropy(x, head, labels, 15.0), (x, head)
    )
    plain = functional.cross_entropy(15 * torch.tanh(x @ head.T / 15), labels, reduction="sum")
    torch.testing.assert_close(softcapped_cross_entropy(x, head, labels, 15.0), plain)


@pytest.mark.usefixtures("device")
def test_a_hopeless_answer_has_a_finite_loss() -> None:
    x, head = torch.tensor([[100.0]]), torch.tensor([[100.0], [-100.0]])
    loss = softcapped_cross_entropy(x, head, torch.tensor([1]), 15.0)
    torch.testing.assert_close(loss, torch.tensor(30.0))


@pytest.mark.usefixtures("device")
def test_nothing_supervised_is_a_loss_of_zero() -> None:
    x, head = torch.ones(3, 4, requires_grad=True), torch.ones(5, 4, requires_grad=True)
    loss = softcapped_cross_entropy(x, head, torch.zeros(0, dtype=torch.long), 15.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert x.grad is not None and head.grad is not None
    assert x.grad.abs().sum() == head.grad.abs().sum() == 0
