import pytest
import torch
from torch import Tensor
from torch.nn import functional

from imprint import attention, fused


def numbers(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def angles(length: int, width: int) -> tuple[Tensor, Tensor]:
    turn = numbers(length, width // 2).detach()
    return torch.cat([turn.cos(), turn.cos()], -1), torch.cat([turn.sin(), -turn.sin()], -1)


def seen(*, documents: bool) -> Tensor | None:
    """Return the mask of two rows of five tokens: None, or the first row holds two documents."""
    documents_BT = torch.tensor([[0, 0, 0, 1, 1], [0] * 5], dtype=torch.int32)
    given = documents_BT if documents else None
    mask = attention.itself(torch.ones(1, dtype=torch.float64), given, blocks=False)
    assert mask is None or isinstance(mask, Tensor)
    return mask


def test_the_derivative_of_the_norm_is_right() -> None:
    assert torch.autograd.gradcheck(fused.rms_norm, (numbers(3, 5, 8),))


def test_the_derivative_of_the_squared_product_is_right() -> None:
    assert torch.autograd.gradcheck(
        lambda x, weight: fused.squared_linear(x * 1, weight, eight=False),
        (numbers(2, 6, 7), numbers(3, 7)),
    )


def test_the_derivative_of_turning_is_right() -> None:
    cos, sin = (angle[:, None] for angle in angles(5, 4))
    assert torch.autograd.gradcheck(lambda x: fused.turn(x, cos, sin), (numbers(2, 5, 3, 4),))


@pytest.mark.parametrize("documents", [False, True])
def test_the_derivative_of_self_attention_is_right(documents: bool) -> None:
    (cos, sin), mask = angles(5, 4), seen(documents=documents)
    assert torch.autograd.gradcheck(
        lambda heads: fused.self_attend(heads, cos, sin, mask), (numbers(2, 5, 6, 4),)
    )


@pytest.mark.parametrize("documents", [False, True])
def test_self_attention_is_what_its_parts_are(documents: bool) -> None:
    heads, (cos, sin) = numbers(2, 5, 6, 4), angles(5, 4)
    queries, keys, values = heads.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    queries, keys = (fused.rms_norm(fused.rotate(x, cos, sin)) for x in (queries, keys))
    mask = seen(documents=documents)
    mixed = attention.attend(queries, keys, values, mask)
    torch.testing.assert_close(
        fused.self_attend(heads, cos, sin, mask), mixed.transpose(1, 2).reshape(2, 5, 8)
    )


@pytest.fixture(params=["cpu", "gpu"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the operations of either, on a CPU."""
    monkeypatch.setattr(fused, "on_gpu", lambda _: request.param == "gpu")


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.usefixtures("device")
def test_the_loss_and_its_derivative_are_right(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHUNK", "CHUNK_GPU"):
        monkeypatch.setattr(fused, name, chunk)
    x, head, labels = numbers(7, 4), numbers(11, 4), torch.arange(7)
    assert torch.autograd.gradcheck(
        lambda x, head: fused.softcapped_cross_entropy(x, head, labels, 15.0), (x, head)
    )
    plain = functional.cross_entropy(15 * torch.tanh(x @ head.T / 15), labels, reduction="sum")
    torch.testing.assert_close(fused.softcapped_cross_entropy(x, head, labels, 15.0), plain)


@pytest.mark.usefixtures("device")
def test_a_hopeless_answer_has_a_finite_loss() -> None:
    x, head = torch.tensor([[100.0]]), torch.tensor([[100.0], [-100.0]])
    loss = fused.softcapped_cross_entropy(x, head, torch.tensor([1]), 15.0)
    torch.testing.assert_close(loss, torch.tensor(30.0))


@pytest.mark.usefixtures("device")
def test_nothing_supervised_is_a_loss_of_zero() -> None:
    x, head = torch.ones(3, 4, requires_grad=True), torch.ones(5, 4, requires_grad=True)
    loss = fused.softcapped_cross_entropy(x, head, torch.zeros(0, dtype=torch.long), 15.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0
    assert x.grad is not None and head.grad is not None
    assert x.grad.abs().sum() == head.grad.abs().sum() == 0
