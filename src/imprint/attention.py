"""Who sees whom, and what attention costs: a CPU, a GPU, rows of one document or of many.

Shape letters: see model.py.
"""

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from imprint import fused
from imprint.shape import ModelConfig

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Mask: TypeAlias = "Tensor | BlockMask | None"
"""Added to the scores; or blocks of what is seen; or None for what came before."""


def written_out(config: ModelConfig, x: Tensor) -> bool:
    """Return whether ``fused.self_attend`` is the fastest: on a CPU, without grouped heads."""
    return config.n_keys == config.n_head and not fused.on_gpu(x)


def bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: zero where ``seen``, minus infinity elsewhere."""
    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill_(~seen, float("-inf"))


def itself(x_BTC: Tensor, documents_BT: Tensor | None, *, blocks: bool) -> Mask:
    """Return the mask of rows that see nothing but themselves.

    Args:
        x_BTC: The stream, for its number type.
        documents_BT: Which document of its row each token belongs to, int32; documents do not see
            each other. None where a row is one.
        blocks: Whether attention will be compiled, and then leaves out blocks of which nothing
            is seen.
    """
    if documents_BT is None:
        return None
    if blocks:
        return _blocks(documents_BT)
    same = documents_BT[:, None, :, None] == documents_BT[:, None, None, :]
    return bias(same.tril_(), x_BTC.dtype)


def attend(queries_BHTD: Tensor, keys_BKSD: Tensor, values_BKSD: Tensor, mask: Mask) -> Tensor:
    """Return what each query gathers from the values; causal if ``mask`` is None."""
    grouped = queries_BHTD.shape[1] != keys_BKSD.shape[1]
    if mask is None or isinstance(mask, Tensor):
        return functional.scaled_dot_product_attention(
            queries_BHTD,
            keys_BKSD,
            values_BKSD,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=grouped,
        )
    from torch.nn.attention.flex_attention import flex_attention

    mixed = flex_attention(
        queries_BHTD, keys_BKSD, values_BKSD, block_mask=mask, enable_gqa=grouped
    )
    assert isinstance(mixed, Tensor)  # and not also the sums that can be asked for
    return mixed


def _blocks(documents_BT: Tensor) -> "BlockMask":
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = documents_BT[row, query] == documents_BT[row, key]
        return (query >= key) & same

    rows, length = documents_BT.shape
    return create_block_mask(seen, rows, None, length, length, device=documents_BT.device)
