import pytest
import torch
from torch import Tensor, nn

from imprint import float8, fused
from imprint.errors import ConfigError
from imprint.layers import Block, use_float8
from imprint.model import ModelConfig


def powers(*shape: int, most: int) -> Tensor:
    """Powers of two up to that of ``most``, which is there: what float8 holds exactly."""
    generator = torch.Generator().manual_seed(1)
    x = 2.0 ** torch.randint(most - 8, most, shape, generator=generator)
    x.view(-1)[0] = 2.0**most
    return x


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(shape[0])
    return torch.randn(shape, generator=generator).bfloat16().requires_grad_()


def off(found: Tensor | None, right: Tensor | None) -> float:
    """Length of the error as a share of the length of what is right."""
    assert found is not None and right is not None
    return float((found - right).float().norm().item() / right.float().norm().item())


def test_what_float8_holds_is_multiplied_exactly() -> None:
    x, weight, grad = powers(32, 48, most=2), powers(64, 48, most=-3), powers(32, 64, most=5)
    made = float8.product(x, weight, eight=True)
    torch.testing.assert_close(made, x @ weight.T, atol=0, rtol=1e-6)
    grads = float8.product_grads(grad, x, weight, eight=True)
    torch.testing.assert_close(grads, (grad @ weight, grad.T @ x), atol=0, rtol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_float8_is_near_to_bfloat16(squared: bool) -> None:
    found = []
    for eight in (True, False):
        x, weight = noise(2, 32, 64), noise(128, 64)
        run = fused.squared_linear if squared else float8.linear
        out = run(x * 1, weight, eight=eight)
        out.backward(noise(2, 32, 128).detach())  # type: ignore[no-untyped-call]
        found.append((out, x.grad, weight.grad))
    errors = [off(*pair) for pair in zip(*found, strict=True)]
    assert errors[0] < 0.06 and max(errors[1:]) < 0.12
    assert min(errors) > 0.01  # it is not bfloat16


def test_rows_that_do_not_fit_are_multiplied_as_ever() -> None:
    x, weight = noise(3, 5, 64), noise(128, 64)
    assert torch.equal(float8.linear(x, weight, eight=True), float8.linear(x, weight, eight=False))


def test_only_matrices_whose_sides_fit_are_multiplied_in_float8() -> None:
    config = ModelConfig(depth=1, vocabulary=300, context=32, head_width=8, n_kv_head=1)
    layers = nn.ModuleList([Block(config)])
    use_float8(layers, eight=True)
    assert {
        name: part.eight for name, part in layers.named_modules() if hasattr(part, "eight")
    } == {
        "0.attn.c_q": True,
        "0.attn.c_k": False,
        "0.attn.c_v": False,
        "0.attn.c_proj": True,
        "0.mlp.c_fc": True,
        "0.mlp.c_proj": True,
    }


@pytest.mark.parametrize(("capability", "works"), [((8, 0), False), ((8, 9), True), ((9, 0), True)])
def test_only_new_gpus_have_float8(
    capability: tuple[int, int], works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    if works:
        float8.refuse(torch.device("cuda"))
    else:
        with pytest.raises(ConfigError, match=r"this is NVIDIA A100\. Set precision to auto"):
            float8.refuse(torch.device("cuda"))
