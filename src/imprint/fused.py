"""The model's inner operations, each with its derivative written out.

Automatic differentiation would keep and read again every intermediate result, which on a CPU takes
longer than the matrix products themselves at the width of a small model. Numbers in comments are
milliseconds of one core, forward and backward, for 4088 tokens of width 128 in bfloat16: plain
operations -> these.

Shape letters: see model.py.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

EPSILON = 1e-6
CHUNK = 128
"""Rows of logits at a time: with 2048 tokens of vocabulary they stay in a core's own cache."""
CHUNK_GPU = 4096
"""The same on a GPU, where starting an operation costs more than its memory."""


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of one."""
    if x.is_cuda:
        return functional.rms_norm(x, (x.shape[-1],), eps=EPSILON)
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


def relu_squared(x: Tensor) -> Tensor:
    """Return the square of what is positive, zero elsewhere; ``x`` is used up."""
    return _ReluSquared.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: zero where ``seen``, minus infinity elsewhere."""
    hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return hidden.masked_fill_(~seen, float("-inf"))


def attend(
    queries_BHTD: Tensor, keys_BKSD: Tensor, values_BKSD: Tensor, mask: Tensor | None
) -> Tensor:
    """Return what each query gathers from the values; causal if ``mask`` is None."""
    return functional.scaled_dot_product_attention(
        queries_BHTD,
        keys_BKSD,
        values_BKSD,
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=queries_BHTD.shape[1] != keys_BKSD.shape[1],
    )


def self_attend(heads_BTGD: Tensor, cos_TD: Tensor, sin_TD: Tensor, mask_TT: Tensor) -> Tensor:
    """Rotate and normalise queries and keys, and let each row attend to itself.

    Args:
        heads_BTGD: Queries, keys and values of all heads side by side, G = 3 H.
        cos_TD: See ``rotate``.
        sin_TD: See ``rotate``.
        mask_TT: Added to the scores.

    Returns:
        mixed_BTC: Heads side by side.
    """
    return _SelfAttend.apply(heads_BTGD, cos_TD, sin_TD, mask_TT)  # type: ignore[no-any-return, no-untyped-call]


def softcapped_cross_entropy(x_NC: Tensor, head_VC: Tensor, labels_N: Tensor, cap: float) -> Tensor:
    """Return the summed cross-entropy in nats of logits ``cap * tanh(x @ head.T / cap)``.

    Rows of ``x_NC`` behind the last label are not looked at.
    """
    return _Loss.apply(x_NC, head_VC, labels_N, cap)  # type: ignore[no-any-return, no-untyped-call]


def _scale(x: Tensor) -> Tensor:
    """Return what brings the last axis of ``x`` to a root mean square of one."""
    wide = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
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


class _ReluSquared(Function):  # 3.6 -> 1.6
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu_()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        grad: Tensor = grads[0] * positive
        return grad.mul_(2)


class _SelfAttend(Function):  # 37 -> 9
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        rows, length, groups, width = heads.shape
        split = heads.view(rows, length, 3, groups // 3, width).permute(2, 0, 3, 1, 4).contiguous()
        scale = _scale(split[:2])
        turned = rotate(split[:2], cos, sin).mul_(scale)  # a rotation keeps the norm
        queries, keys = turned.flatten(1, 2)
        values = split[2].flatten(0, 1)
        scores = torch.bmm(queries, keys.mT).mul_(width**-0.5)
        scores = scores.view(rows, -1, length, length).add_(mask).flatten(0, 1)
        wide = torch.promote_types(scores.dtype, torch.float32)
        weights = torch.softmax(scores, dim=-1, dtype=wide).to(scores.dtype)
        mixed = torch.bmm(weights, values).view(rows, -1, length, width)
        out = mixed.transpose(1, 2).reshape(rows, length, -1)
        ctx.save_for_backward(turned, scale, values, weights, out, cos, sin)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        turned, scale, values, weights, out, cos, sin = ctx.saved_tensors
        _, rows, count, length, width = turned.shape
        queries, keys = turned.flatten(1, 2)
        grad = grads[0].view(rows, length, count, width)
        along = (grad * out.view_as(grad)).sum(dim=-1).transpose(1, 2).reshape(-1, length, 1)
        grad = grad.transpose(1, 2).reshape(rows * count, length, width)
        result = torch.empty(3, rows * count, length, width, dtype=grad.dtype, device=grad.device)
        torch.bmm(weights.mT, grad, out=result[2])
        scores = torch.bmm(grad, values.mT).sub_(along).mul_(weights).mul_(width**-0.5)
        torch.bmm(scores, keys, out=result[0])
        torch.bmm(scores.mT, queries, out=result[1])
        result = result.view(3, rows, count, length, width)
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
        chunk = CHUNK_GPU if x.is_cuda else CHUNK
        # room for one chunk, used again and again: fresh memory costs a fifth of the time
        narrow = torch.empty(min(chunk, len(x)), len(head), dtype=x.dtype, device=x.device)
        gates, odds = (torch.empty_like(narrow, dtype=wide) for _ in range(2))
        for start in range(0, len(x), chunk):
            rows, wanted = x[start : start + chunk], labels[start : start + chunk, None]
            every, real = slice(len(rows)), slice(len(wanted))
            torch.mm(scaled[start : start + chunk], small.T, out=narrow[every])
            gate = gates[every].copy_(narrow[every]).sigmoid_()  # tanh takes 5 times that
            odd = torch.mul(gate, 2 * cap, out=odds[every]).exp_()  # e^30 at most: no maximum first
            sums = odd.sum(dim=-1, keepdim=True)
            total += (sums[real].log() - 2 * cap * gate[real].gather(1, wanted)).sum()
            odd[real].scatter_add_(1, wanted, -sums[real])
            slope = narrow[every].copy_(gate.addcmul_(gate, gate, value=-1).mul_(odd))
            share = (4 / sums).to(x.dtype)  # rows are brought to scale where they are short
            share[len(wanted) :] = 0
            torch.mm(slope, small, out=grads_x[start : start + chunk])
            grads_x[start : start + chunk] *= share
            grads_head += slope.T @ (rows * share)
        ctx.save_for_backward(grads_x, grads_head)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grads_x, grads_head = ctx.saved_tensors
        return grads_x * grads[0].to(grads_x.dtype), grads_head * grads[0], None, None
