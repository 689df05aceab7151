"""Products of few rows and a matrix, whose sums have one order for any number of rows.

Products come from oneDNN with the matrix packed beforehand. It adds up every number in the same
order for 2 rows and for 2,100; what ``torch.nn.functional.linear`` calls on a CPU does not. It is
also faster: 3.1 instead of 4.6 ms for a step of 64 rows of d4, on two cores. But it takes 12 us to
begin, which is long for one row, and may take that in another order: one row is multiplied in a way
of its own, with the bits of many.

Shape letters used in this file: N rows, I numbers that go in, O that come out, C width of the
model.
"""

import torch
from torch import Tensor
from torch.nn import functional

BLOCKS = (512, 1024)
"""Numbers that oneDNN adds up before it begins another sum: with AVX-512 512 of up to 1,024, else
1,024."""
LARGE = 1 << 17
"""Numbers of a transposed matrix up to which its rows are left whole: half a megabyte."""
STRIP = 64
"""Columns of a larger one that lie together. A core adds up some 100 at a time, so of longer rows
it reads a piece here and a piece there: 8 to 10 GB/s instead of 12 to 18."""
PACKED_FOR = 4
"""Rows to pack a matrix for: as fast as any other number, at 1 row and at 64."""


def product(x_NI: Tensor, matrix: list[Tensor], relu: bool = False) -> Tensor:
    """Return ``x_NI`` times a ``matrix``, perhaps without what is below zero."""
    if x_NI.size(0) == 1 and len(matrix) > 1:
        out = alone(x_NI, matrix)
    elif matrix[0].is_mkldnn:
        return linear(x_NI, matrix[0], "relu" if relu else "none")
    else:
        out = functional.linear(x_NI, matrix[0])
    return out.relu_() if relu else out


def added(x_NI: Tensor, matrix: list[Tensor], to_NO: Tensor) -> Tensor:
    """Return ``x_NI`` times a ``matrix``, plus ``to_NO``."""
    if to_NO.size(0) == 1 and len(matrix) > 1:
        return alone(x_NI, matrix).add_(to_NO)
    if matrix[0].is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x_NI, to_NO, matrix[0], None, "add")  # type: ignore[no-any-return]
    return functional.linear(x_NI, matrix[0]).add_(to_NO)


def linear(x_NI: Tensor, packed: Tensor, after: str = "none") -> Tensor:
    """Return the product with a packed matrix, and what comes ``after`` it."""
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed, None, after, [], "")  # type: ignore[no-any-return]


def alone(x_1I: Tensor, matrix: list[Tensor]) -> Tensor:
    """Return the product of one row as if it were among others; see ``matrix`` for the ways."""
    if len(matrix) == 2:
        return linear(x_1I.expand(2, -1), matrix[0])[:1]
    if len(matrix) == 4:
        return weighted(matrix[1], matrix[2], matrix[3], x_1I.view(-1))
    weights = x_1I.expand(matrix[1].size(0) // x_1I.size(1), -1).reshape(-1)
    parts = weighted(matrix[1], matrix[2], matrix[3], weights)
    if len(matrix[4]):
        parts = torch.mm(matrix[4], parts)
    return parts.view(1, -1)


def normal(x_NC: Tensor, lengths_N1: Tensor) -> Tensor:
    """Scale rows, none of them all zero, to the lengths given: a fifth of ``rms_norm``'s time."""
    return torch._weight_norm_interface(x_NC, lengths_N1, 0)[0]


def safe_scale(x_NC: Tensor, ones_N1: Tensor, epsilon: Tensor) -> Tensor:
    """Return what scales rows to a root mean square of one, N1; zeros stay what they are."""
    length_N1 = torch._weight_norm_interface(x_NC, ones_N1, 0)[1]
    return torch.addcmul(epsilon, length_N1, length_N1, value=1.0 / x_NC.size(1)).rsqrt_()


def weighted(rows: Tensor, which: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Return sums of weighted rows, added up one by one; ``starts`` is where each sum begins."""
    return torch._embedding_bag_forward_only(rows, which, starts, False, 0, False, weights)[0]


def matrix(weight_OI: Tensor, *, small: bool) -> list[Tensor]:
    """Return a weight as ``product`` wants it, in float32.

    First comes what multiplies many rows. What follows, if anything, is for one row:

    - Of a ``small`` model the transposed matrix, if ``LARGE`` in strips of ``STRIP`` columns one
      below the other, and how to add up its rows as oneDNN does: a block at a time, and then the
      sums. All of d4 takes 0.4 instead of 0.7 ms then. Which of ``BLOCKS`` it is is tried out.
    - Else nothing, or where oneDNN takes one row alone in another way than two (with AVX-512 and
      more than 1,024 numbers that go in) a mark that it wants two.
    """
    weight_OI = weight_OI.detach().float().contiguous()
    if weight_OI.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return [weight_OI]
    packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, PACKED_FOR)
    outer, inner = weight_OI.shape
    trial = torch.linspace(-1, 1, inner)[None].sin()
    wanted = linear(trial.expand(2, -1), packed)[:1]
    if small:
        strip = STRIP if weight_OI.numel() > LARGE and outer % STRIP == 0 else outer
        rows = weight_OI.view(-1, strip, inner).transpose(1, 2).contiguous().view(-1, strip)
        for block in BLOCKS:
            starts = torch.arange(0, len(rows), inner)[:, None] + torch.arange(0, inner, block)
            ways = [packed, rows, torch.arange(len(rows)), starts.flatten()]
            if (blocks := starts.shape[1]) > 1:
                ways.append(torch.eye(len(starts)).repeat_interleave(blocks, dim=1))
            elif strip < outer:
                ways.append(torch.empty(0))
            if torch.equal(alone(trial, ways), wanted):
                return ways
    return [packed] if torch.equal(linear(trial, packed), wanted) else [packed, torch.empty(0)]
