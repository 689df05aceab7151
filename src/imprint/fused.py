"""The model's inner operations, each with its derivative written out.

Automatic differentiation would keep and read again every intermediate result, which on a CPU takes
longer than the matrix products themselves at the width of a small model, and on a GPU doubles the
memory a token takes. Numbers in comments are milliseconds of one core, forward and backward, for
4088 tokens of width 128 in bfloat16: plain operations -> these.

Shape letters: see model.py.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from imprint import float8

EPSILON = 1e-6
QUERIES = 128
"""Queries that attend together, to the keys they can see and few more. For rows of 256, 1024 and
2048 tokens attention takes 0.9, 0.55 and 0.55 times what it takes with all queries at once."""


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
    Queries come ``QUERIES`` at a time, with the keys they can see.
    """

    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        rows, length, groups, width = heads.shape
        split = heads.view(rows, length, 3, groups // 3, width).permute(2, 0, 3, 1, 4).contiguous()
        scale = _scale(split[:2])
        turned = rotate(split[:2], cos, sin).mul_(scale)  # a rotation keeps the norm
        queries, keys = turned.flatten(1, 2)
        values = split[2].flatten(0, 1)
        queries = queries * width**-0.5
        wide = torch.promote_types(heads.dtype, torch.float32)
        out = heads.new_empty(rows, length, groups // 3, width)
        kept = []
        for first in range(0, length, QUERIES):
            last = min(first + QUERIES, length)
            odds = torch.bmm(queries[:, first:last], keys[:, :last].mT)
            if mask is None:
                odds.exp_().tril_(first)
            else:
                odds.view(rows, -1, last - first, last).add_(mask[..., first:last, :last]).exp_()
            share = odds.sum(dim=-1, keepdim=True).to(wide).reciprocal_().to(odds.dtype)
            mixed = torch.bmm(odds, values[:, :last]).mul_(share)
            out[:, first:last] = mixed.view(rows, -1, last - first, width).transpose(1, 2)
            kept += [odds, share]
        ctx.save_for_backward(turned, scale, values, out, cos, sin, *kept)
        return out.flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        turned, scale, values, out, cos, sin, *kept = ctx.saved_tensors
        _, rows, count, length, width = turned.shape
        queries, keys = turned.flatten(1, 2)
        grad = grads[0].view(rows, length, count, width)
        along = (grad * out).sum(dim=-1).transpose(1, 2).reshape(-1, length, 1)
        grad = grad.transpose(1, 2).reshape(rows * count, length, width)
        result = torch.empty(3, rows * count, length, width, dtype=grad.dtype, device=grad.device)
        for first in reversed(range(0, length, QUERIES)):  # the last sees all keys
            here = slice(first, first + QUERIES)
            share, odds = kept.pop(), kept.pop()
            last = odds.shape[-1]
            part = grad[:, here] * share
            scores = torch.bmm(part, values[:, :last].mT)
            scores = scores.sub_(along[:, here].mul_(share)).mul_(odds)
            torch.bmm(scores, keys[:, :last], out=result[0, :, here])
            if last == length:
                torch.bmm(scores.mT, queries[:, here], out=result[1])
                torch.bmm(odds.mT, part, out=result[2])
            else:
                result[1, :, :last] += torch.bmm(scores.mT, queries[:, here])
                result[2, :, :last] += torch.bmm(odds.mT, part)
        result = result.view(3, rows, count, length, width)
        scale = scale * width**-0.5
        result[:2] = rotate(_unscale(result[:2], turned), cos, -sin).mul_(scale)
        back = result.permute(1, 3, 0, 2, 4).reshape(rows, length, 3 * count, width)
        return back, None, None, None
