"""The loss: logits are worked out with it, a block at a time, and never kept.

Its derivative is written out, as those of `imprint.fused` are. Numbers in comments are milliseconds
of one core, forward and backward, for 4088 tokens of width 128 in bfloat16: plain operations ->
these.

Shape letters: see model.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from imprint import fused

BLOCK = 1024
"""Rows of logits that are multiplied at a time."""
CHUNK = 64
"""Rows of logits between two products: with 4096 tokens of vocabulary they stay in a core's cache.
Together they take 90 instead of 106 ms for 2048 rows of width 256 and 4096 tokens of vocabulary."""
CHUNK_GPU = 4096
"""The same on a GPU, where starting an operation costs more than its memory: 2 GB with 65,536."""

Slopes = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def softcapped_cross_entropy(
    x_NC: Tensor, head_VC: Tensor, labels_N: Tensor, cap: float, slopes: Slopes | None = None
) -> Tensor:
    """Return the summed cross-entropy in nats of logits ``cap * tanh(x @ head.T / cap)``.

    Rows of ``x_NC`` behind the last label are not looked at. On a GPU ``slopes`` may be a compiled
    form of the function of that name.
    """
    if fused.on_gpu(x_NC):
        return _LossGPU.apply(x_NC, head_VC, labels_N, cap, slopes or logit_slopes)  # type: ignore[no-any-return, no-untyped-call]
    return _Loss.apply(x_NC, head_VC, labels_N, cap)  # type: ignore[no-any-return, no-untyped-call]


def logit_slopes(logits_NV: Tensor, labels_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of soft-capped logits and its derivative by ``logits_NV``."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    gates = torch.sigmoid(logits_NV.to(wide) * (2 / cap))
    odds = torch.exp(2 * cap * gates)  # e^30 at most: no maximum first
    sums = odds.sum(dim=-1, keepdim=True)
    wanted = labels_N[:, None]
    nats = (sums.log() - 2 * cap * gates.gather(1, wanted)).sum()
    right = wanted == torch.arange(logits_NV.shape[1], device=logits_NV.device)
    slopes = (odds / sums - right.to(wide)) * (4 * gates * (1 - gates))
    return nats, slopes.to(logits_NV.dtype)


class _Loss(Function):  # 55 -> 36; the derivative is worked out on the way, logits are not kept
    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Tensor, labels: Tensor, cap: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        small = head.to(x.dtype)
        scaled = x * (2 / cap)
        grads_x = torch.empty_like(x)
        grads_head = torch.zeros_like(head)
        total = torch.zeros((), dtype=wide, device=x.device)
        # room for one block and one chunk, used again and again: fresh memory costs a fifth
        narrow = torch.empty(min(BLOCK, len(x)), len(head), dtype=x.dtype, device=x.device)
        size = (min(CHUNK, len(x)), len(head))
        gates, odds = (torch.empty(size, dtype=wide, device=x.device) for _ in range(2))
        for first in range(0, len(x), BLOCK):
            rows = x[first : first + BLOCK]
            slopes = narrow[: len(rows)]
            torch.mm(scaled[first : first + BLOCK], small.T, out=slopes)
            slopes[max(0, len(labels) - first) :] = 0  # filler
            for start in range(first, min(first + len(rows), len(labels)), CHUNK):
                wanted = labels[start : min(start + CHUNK, first + BLOCK), None]
                part = slopes[start - first :][: len(wanted)]
                gate, share = gates[: len(wanted)], odds[: len(wanted)]
                gate.copy_(part).sigmoid_()  # tanh takes 5 times that
                torch.mul(gate, 2 * cap, out=share)
                torch.softmax(share, dim=-1, out=share)  # exp alone takes twice that
                right = share.gather(1, wanted)
                total -= right.log().sum()
                share.scatter_(1, wanted, right - 1)
                torch.ops.aten.sigmoid_backward(share, gate, grad_input=share)  # share g (1 - g)
                part.copy_(share)
            torch.mm(slopes, small, out=grads_x[first : first + BLOCK])
            grads_head += slopes.T @ rows
        ctx.save_for_backward(grads_x, grads_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grads_x, grads_head = ctx.saved_tensors
        scale = 4 * grads[0]  # the slope of cap * tanh(x / cap) is 4 g (1 - g)
        return grads_x * scale.to(grads_x.dtype), grads_head * scale, None, None


class _LossGPU(Function):  # the same with few, large operations
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, head: Tensor, labels: Tensor, cap: float, slopes: Slopes
    ) -> Tensor:
        small = head.to(x.dtype)
        grads_x, grads_head = torch.zeros_like(x), torch.zeros_like(head)
        wide = torch.promote_types(x.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=x.device)
        for start in range(0, len(labels), CHUNK_GPU):
            wanted = labels[start : start + CHUNK_GPU]
            here = slice(start, start + len(wanted))
            nats, slope = slopes(x[here] @ small.T, wanted, cap)
            total += nats
            grads_x[here] = slope @ small
            grads_head += slope.T @ x[here]
        ctx.save_for_backward(grads_x, grads_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grads_x, grads_head = ctx.saved_tensors
        return grads_x * grads[0].to(grads_x.dtype), grads_head * grads[0], None, None, None
