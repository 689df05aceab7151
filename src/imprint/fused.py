"""The model's operations, written so that few passes over memory are made.

Shape letters: see model.py.
"""

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-6


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of one."""
    return functional.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def rotate(x_BTHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of a head's halves by minus its position's angle, as nanochat does."""
    first, second = x_BTHD.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def relu_squared(x: Tensor) -> Tensor:
    """Return the square of what is positive, zero elsewhere."""
    return functional.relu(x).square()


def bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: zero where ``seen``, minus infinity elsewhere."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(
        ~seen, float("-inf")
    )


def attend(
    queries_BHTD: Tensor, keys_BKSD: Tensor, values_BKSD: Tensor, mask: Tensor | None
) -> Tensor:
    """Return what each query gathers from the values; causal if ``mask`` is None."""
    groups = queries_BHTD.shape[1] != keys_BKSD.shape[1]
    return functional.scaled_dot_product_attention(
        queries_BHTD,
        keys_BKSD,
        values_BKSD,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=groups,
    )


def softcapped_cross_entropy(x_NC: Tensor, head_VC: Tensor, labels_N: Tensor, cap: float) -> Tensor:
    """Return the summed cross-entropy of softcapped logits, in nats."""
    logits = functional.linear(x_NC, head_VC.to(x_NC.dtype)).float()
    return functional.cross_entropy(cap * torch.tanh(logits / cap), labels_N, reduction="sum")
