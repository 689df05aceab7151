import pytest
import torch
from torch import Tensor

from imprint import attention, fused
from reference import numbers


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


@pytest.fixture(params=[2, 5])
def queries(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two queries attend together, or all five."""
    monkeypatch.setattr(fused, "QUERIES", request.param)


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.usefixtures("queries")
def test_the_derivative_of_self_attention_is_right(documents: bool) -> None:
    (cos, sin), mask = angles(5, 4), seen(documents=documents)
    assert torch.autograd.gradcheck(
        lambda heads: fused.self_attend(heads, cos, sin, mask), (numbers(2, 5, 6, 4),)
    )


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.usefixtures("queries")
def test_self_attention_is_what_its_parts_are(documents: bool) -> None:
    heads, (cos, sin) = numbers(2, 5, 6, 4), angles(5, 4)
    queries, keys, values = heads.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    queries, keys = (fused.rms_norm(fused.rotate(x, cos, sin)) for x in (queries, keys))
    mask = seen(documents=documents)
    mixed = attention.attend(queries, keys, values, mask)
    torch.testing.assert_close(
        fused.self_attend(heads, cos, sin, mask), mixed.transpose(1, 2).reshape(2, 5, 8)
    )
