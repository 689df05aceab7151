"""What a GPU has to hold, counted on a CPU with the operations of a GPU.

Shape letters: see model.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from imprint import fused, layers
from imprint.layers import Block
from imprint.model import ModelConfig
from imprint.training.gradients import KEPT, fixed_bytes, token_bytes

D20 = ModelConfig(depth=20, vocabulary=65_536, context=2048, head_width=128)


TOKENS = 49
"""No weight's size is a multiple of it: that tells what depends on tokens."""


def kept(run: Callable[..., Tensor], block: Block) -> tuple[float, Tensor]:
    """Numbers of width C a token that a layer keeps for the way back, and the gradient."""
    held: dict[int, int] = {}
    generator = torch.Generator().manual_seed(1)
    x_BTC = torch.randn(1, TOKENS, D20.width, generator=generator).bfloat16().requires_grad_()
    rope = (torch.ones(TOKENS, D20.head_width, dtype=torch.bfloat16),) * 2

    def hold(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() % TOKENS == 0 and storage.data_ptr() != rope[0].data_ptr():
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        out = run(block, x_BTC * 1, rope, None, None)
    out.square().sum().backward()  # type: ignore[no-untyped-call]
    assert x_BTC.grad is not None
    return sum(held.values()) / TOKENS / D20.width / 2, x_BTC.grad


@pytest.mark.filterwarnings("ignore")  # the compiler sets off its own
def test_depth_20_fits_on_80_gb_compiled_as_a_whole_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "on_gpu", lambda _: True)
    backend = "aot_eager_decomp_partition"  # decides what to keep as the real one does
    compiled: Any = torch.compile(layers.through, backend=backend, fullgraph=True)
    block = Block(D20)
    for weight in block.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    (plain, expected), (fast, grad) = kept(layers.through, block), kept(compiled, block)
    assert 10 < plain <= KEPT and 10 < fast <= KEPT
    torch.testing.assert_close(grad, expected, atol=0.05, rtol=0.05)
    assert fixed_bytes(D20) + 32 * 2048 * token_bytes(D20, torch.bfloat16) < 60e9
