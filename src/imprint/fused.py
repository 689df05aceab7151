"""The model's inner operations, each with its derivative written out.

Automatic differentiation would keep and read again every intermediate result, which on a CPU takes
longer than the matrix products themselves at the width of a small model, and on a GPU doubles the
memory a token takes. Numbers in comments are milliseconds of one core, forward and backward, for
4088 tokens of width 128 in bfloat16: plain operations -> these.

Shape letters: see model.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from imprint import float8

EPSILON = 1e-6
BLOCK = 1024
"""Rows of logits that are multiplied at a time."""
CHUNK = 64
"""Rows of logits between two products: with 4096 tokens of vocabulary they stay in a core's cache.
Together they take 90 instead of 106 ms for 2048 rows of width 256 and 4096 tokens of vocabulary."""
CHUNK_GPU = 4096
"""The same on a GPU, where starting an operation costs more than its memory: 2 GB with 65,536."""

Slopes = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def on_gpu(x: Tensor) -> bool:
    """Return whether ``x`` takes the operations that suit a GPU; a test can say yes for a CPU."""
    return x.is_cuda


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of one."""
    return _Norm.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of a head's halves by minus its position's angle, as nanochat does.

    Args:
        x: Last axis D.
        cos: Last axis D: the cosine of each pair's angle, twice.
        sin: Last axis D: its sine, then minus its sine. With the signs changed, ``rotate`` undoes.
    """
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), dim=-1)
    return torch.addcmul(x * cos, swapped, sin)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate and normalise queries or keys; arguments as in ``rotate``."""
    return _Turn.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def squared_linear(x: Tensor, weight: Tensor, *, eight: bool) -> Tensor:
    """Return ``relu(x) ** 2 @ weight.T``; ``x`` is used up.

    Args:
        x: What the first matrix of an MLP has made.
        weight: The second matrix, in the number type of ``x``.
        eight: Whether to multiply in float8.
    """
    return _SquaredLinear.apply(x, weight, eight)  # type: ignore[no-any-return, no-untyped-call]


def self_attend(
    heads_BTGD: Tensor, cos_TD: Tensor, sin_TD: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Rotate and normalise queries and keys, and let each row attend to itself.

    Args:
        heads_BTGD: Queries, keys and values of all heads side by side, G = 3 H.
        cos_TD: See ``rotate``.
        sin_TD: See ``rotate``.
        mask: Added to the scores, (B, 1, T, T); None for what came before.

    Returns:
        mixed_BTC: Heads side by side.
    """
    return _SelfAttend.apply(heads_BTGD, cos_TD, sin_TD, mask)  # type: ignore[no-any-return, no-untyped-call]


def softcapped_cross_entropy(
    x_NC: Tensor, head_VC: Tensor, labels_N: Tensor, cap: float, slopes: Slopes | None = None
) -> Tensor:
    """Return the summed cross-entropy in nats of logits ``cap * tanh(x @ head.T / cap)``.

    Rows of ``x_NC`` behind the last label are not looked at. On a GPU ``slopes`` may be a compiled
    form of the function of that name.
    """
    if on_gpu(x_NC):
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


def _scale(x: Tensor) -> Tensor:
    """Return what brings the last axis of ``x`` to a root mean square of one."""
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).to(wide)
    scale: Tensor = length.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_().to(x.dtype)
    return scale


def _unscale(grad: Tensor, out: Tensor) -> Tensor:
    """Take from ``grad`` its part along ``out``, which a norm does not let through."""
    along = (grad * out).sum(dim=-1, keepdim=True).div_(-out.shape[-1])
    return torch.addcmul(grad, out, along)


class _Norm(Function):  # 3.7 -> 1.2
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _scale(x)
        out = x * scale
        ctx.save_for_backward(out, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        out, scale = ctx.saved_tensors
        return _unscale(grads[0], out).mul_(scale)


class _Turn(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        scale = _scale(x)
        out = rotate(x, cos, sin) * scale  # a rotation keeps the norm
        ctx.save_for_backward(out, scale, cos, sin)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        out, scale, cos, sin = ctx.saved_tensors
        return rotate(_unscale(grads[0], out), cos, -sin) * scale, None, None


class _SquaredLinear(Function):  # keeps 4 C numbers a token; squares are made again, not kept
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eight: bool) -> Tensor:
        positive = x.relu() if on_gpu(x) else x.relu_()
        ctx.save_for_backward(positive, weight)
        ctx.eight = eight
        return float8.product(positive.square(), weight, eight=eight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        positive, weight = ctx.saved_tensors
        grad, grad_weight = float8.product_grads(
            grads[0],
            positive * positive,
            weight,
            eight=ctx.eight,  # compiled, square() is kept
        )
        return grad.mul_(positive).mul_(2), grad_weight, None


class _SelfAttend(Function):
    """Works on odds that are not shares yet: their sums divide where rows are short.

    Queries and keys have norms, so no score is beyond sqrt(D): no maximum is taken off first.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, groups, width = heads.shape
        split = heads.view(rows, length, 3, groups // 3, width).permute(2, 0, 3, 1, 4).contiguous()
        scale = _scale(split[:2])
        turned = rotate(split[:2], cos, sin).mul_(scale)  # a rotation keeps the norm
        queries, keys = turned.flatten(1, 2)
        values = split[2].flatten(0, 1)
        odds = torch.bmm(queries * width**-0.5, keys.mT)
        if mask is None:
            odds.exp_().tril_()
        else:
            odds.view(rows, -1, length, length).add_(mask).exp_()
        wide = torch.promote_types(odds.dtype, torch.float32)
        share = odds.sum(dim=-1, keepdim=True).to(wide).reciprocal_().to(odds.dtype)
        mixed = torch.bmm(odds, values).mul_(share).view(rows, -1, length, width)
        out = mixed.transpose(1, 2).reshape(rows, length, -1)
        ctx.save_for_backward(turned, scale, values, odds, share, out, cos, sin)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        turned, scale, values, odds, share, out, cos, sin = ctx.saved_tensors
        _, rows, count, length, width = turned.shape
        queries, keys = turned.flatten(1, 2)
        grad = grads[0].view(rows, length, count, width)
        along = (grad * out.view_as(grad)).sum(dim=-1).transpose(1, 2).reshape(-1, length, 1)
        grad = grad.transpose(1, 2).reshape(rows * count, length, width) * share
        result = torch.empty(3, rows * count, length, width, dtype=grad.dtype, device=grad.device)
        torch.bmm(odds.mT, grad, out=result[2])
        scores = torch.bmm(grad, values.mT).sub_(along.mul_(share)).mul_(odds)
        torch.bmm(scores, keys, out=result[0])
        torch.bmm(scores.mT, queries, out=result[1])
        result = result.view(3, rows, count, length, width)
        scale = scale * width**-0.5
        result[:2] = rotate(_unscale(result[:2], turned), cos, -sin).mul_(scale)
        back = result.permute(1, 3, 0, 2, 4).reshape(rows, length, 3 * count, width)
        return back, None, None, None


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
