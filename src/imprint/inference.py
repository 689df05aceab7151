"""The model as it answers: the same mathematics as ``model.py``, arranged for few tokens at a time.

What a row gets is the same to the last bit whoever shares the step. That takes sums whose order
does not depend on how many rows there are, how long they are or how many threads work:

- products come from oneDNN with the matrix packed beforehand. It adds up every number in the same
  order for 1 row and for 2,100; what ``torch.nn.functional.linear`` calls on a CPU does not.
  It is also faster: 3.1 instead of 4.6 ms for a step of 64 rows of d4, on two cores. But it takes
  12 us to begin, which is long for one row: see ``matrix``.
- attention is two sums of weighted rows: keys weighted by a query, values weighted by the odds,
  slot after slot. ``embedding_bag`` does that at the speed of the memory: 50 MB of keys and values
  take 2 to 3 ms, ``scaled_dot_product_attention`` takes 8. What lies behind a row's end has the
  odds 0 and adds nothing.

Shape letters used in this file: N tokens, B rows, T tokens of a prompt, H heads, K heads of keys
and values, D width of a head, C width of the model, V tokens in the vocabulary, M pages of the
longest row, S slots of M pages.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from imprint.fused import EPSILON
from imprint.model import ROPE_BASE, Model
from imprint.pages import SLOTS, Pages

SMALL = 50_000_000
"""Parameters up to which each matrix is kept a second time, for one row."""
BLOCK = 512
"""Numbers that oneDNN adds up before it begins another sum."""
STRIP = 256
"""Columns of it that lie together: the memory is read in one go."""
PACKED_FOR = 4
"""Rows to pack a matrix for: as fast as any other number, at 1 row and at 64."""

PARTS = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a layer."""

Function = TypeVar("Function", bound=Callable[..., object])


class Table(NamedTuple):
    """Which pages the rows of a step have; it serves until a row joins, leaves or needs another."""

    hidden_PS: Tensor
    """For each place of a token, minus infinity at the slots behind it."""
    key_rows: Tensor
    """Of each row, head and page, its D rows among the rows of all keys."""
    key_starts: Tensor
    value_rows: Tensor
    """Of each row and head, its S rows among the rows of all values."""
    value_starts: Tensor


def scripted(function: Function) -> Function:
    """Return ``function`` in TorchScript, or as it is where this Python has none.

    A step is 160 short calls. TorchScript makes them without Python in between, and without its
    lock, which a server needs meanwhile: 1.27 instead of 1.55 ms for one row of d4. It is
    deprecated for what takes seconds to compile, ``torch.compile``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            made: Function = torch.jit.script(function)
        except RuntimeError:  # an operation or a Python that it does not know
            return function
    return made


def product(x_NI: Tensor, matrix: list[Tensor], after: str = "none") -> Tensor:
    """Return ``x_NI`` times a ``matrix``; ``after`` may be relu."""
    if x_NI.size(0) == 1 and len(matrix) > 1:
        out = alone(x_NI, matrix)
    elif matrix[0].is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x_NI, matrix[0], None, after, [], "")  # type: ignore[no-any-return]
    else:
        out = functional.linear(x_NI, matrix[0])
    return out.relu_() if after == "relu" else out


def added(x_NI: Tensor, matrix: list[Tensor], to_NO: Tensor) -> Tensor:
    """Return ``x_NI`` times a ``matrix``, plus ``to_NO``."""
    if x_NI.size(0) == 1 and len(matrix) > 1:
        return alone(x_NI, matrix).add_(to_NO)
    if matrix[0].is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x_NI, to_NO, matrix[0], None, "add")  # type: ignore[no-any-return]
    return functional.linear(x_NI, matrix[0]).add_(to_NO)


def alone(x_1I: Tensor, matrix: list[Tensor]) -> Tensor:
    """Return the product of one row: rows of the transposed matrix, weighted and added up."""
    inner = x_1I.size(1)
    strips = matrix[1].size(0) // inner
    parts = weighted(matrix[1], matrix[2], matrix[3], x_1I.expand(strips, inner).reshape(-1))
    if parts.size(0) > strips:
        parts = parts.view(strips, -1, parts.size(1)).sum(1)
    return parts.view(1, -1)


def normal(x: Tensor, epsilon: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of one: in a third of ``rms_norm``'s time."""
    length = torch.ops.aten.linalg_vector_norm(x, 2, [-1], True)
    square = torch.addcmul(epsilon, length, length, value=1.0 / x.size(-1))
    return x * square.rsqrt_()


def weighted(rows: Tensor, which: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    """Return sums of weighted rows, added up one by one; ``starts`` is where each sum begins."""
    return torch.embedding_bag(rows, which, starts, False, 0, False, weights, False)[0]


def logits(
    given_4N: Tensor,
    turns: Tensor,
    embedding: Tensor,
    matrices: list[list[Tensor]],
    keys: list[Tensor],
    values: list[Tensor],
    table: list[Tensor],
    epsilon: Tensor,
    heads: int,
) -> Tensor:
    """Return the logits of what follows, not capped yet: NV, or 1V after a prompt.

    Args:
        given_4N: The next token of each row, or all tokens of one prompt: the ids, their places in
            the row, their pages, and their slots there.
        turns: Rotary positions of each place, as complex numbers.
        embedding: VC.
        matrices: Four a layer (queries, keys and values; out; up; down), and that of the head.
        keys: Of each layer, in pages. New ones are stored.
        values: The same.
        table: A ``Table``; empty for a prompt.
        epsilon: Added to a mean square.
        heads: H.
    """
    ids, places, pages, slots = given_4N.unbind()
    count = ids.size(0)
    kept, width, held = keys[0].size(1), keys[0].size(2), keys[0].size(3)
    both = heads + kept
    turns_N1 = turns.index_select(0, places).unsqueeze(1)
    hidden_B1S = table[0].index_select(0, places).unsqueeze(1) if len(table) > 0 else epsilon
    x = normal(torch.embedding(embedding, ids), epsilon)
    for layer in range(len(keys)):
        qkv = product(normal(x, epsilon), matrices[4 * layer]).view(count, both + kept, width)
        turned = normal(qkv[:, :both], epsilon).view(count, both, width // 2, 2)
        turned = torch.view_as_real(torch.view_as_complex(turned) * turns_N1).flatten(2)
        queries, new_keys, new_values = turned[:, :heads], turned[:, heads:], qkv[:, both:]
        keys[layer].permute(0, 3, 1, 2).index_put_([pages, slots], new_keys)
        values[layer].transpose(1, 2).index_put_([pages, slots], new_values)
        if len(table) == 0:
            mixed = functional.scaled_dot_product_attention(
                queries.transpose(0, 1).unsqueeze(0),
                new_keys.transpose(0, 1).unsqueeze(0),
                new_values.transpose(0, 1).unsqueeze(0),
                is_causal=True,
                enable_gqa=heads != kept,
            )[0].transpose(0, 1)
        else:
            seen = hidden_B1S.size(2)
            spread = queries.unsqueeze(2).expand(count, heads, seen // held, width).reshape(-1)
            scores = weighted(keys[layer].view(-1, held), table[1], table[2], spread)
            odds = torch.add(hidden_B1S, scores.view(count, heads, seen), alpha=width**-0.5)
            odds = torch.softmax(odds, -1).view(-1)
            mixed = weighted(values[layer].view(-1, width), table[3], table[4], odds)
        x = added(mixed.reshape(count, heads * width), matrices[4 * layer + 1], x)
        wide = product(normal(x, epsilon), matrices[4 * layer + 2], "relu")
        x = added(wide.mul_(wide), matrices[4 * layer + 3], x)
    last = x if len(table) > 0 else x[-1:]
    return product(normal(last, epsilon), matrices[-1])


def matrix(weight_OI: Tensor, *, small: bool) -> list[Tensor]:
    """Return a weight as ``product`` wants it, in float32.

    First comes what multiplies many rows. For one row of a ``small`` model there is also the
    transposed matrix, in strips of ``STRIP`` columns one below the other, and how to add up its
    rows as oneDNN does: ``BLOCK`` at a time. All of d4 takes 0.4 instead of 0.7 ms then. Whether
    this machine's oneDNN does so is tried out.
    """
    weight_OI = weight_OI.detach().float().contiguous()
    if weight_OI.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return [weight_OI]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight_OI, PACKED_FOR)]
    outer, inner = weight_OI.shape
    strip = STRIP if outer % STRIP == 0 else outer
    rows = weight_OI.view(-1, strip, inner).transpose(1, 2).contiguous().view(-1, strip)
    starts = torch.arange(0, len(rows), inner)[:, None] + torch.arange(0, inner, BLOCK)
    both = [*packed, rows, torch.arange(len(rows)), starts.flatten()]
    trial = torch.linspace(-1, 1, inner)[None].sin()
    same = small and torch.equal(product(trial, both), product(trial, packed))
    return both if same else packed


def paired(weight: Tensor, width: int) -> Tensor:
    """Put the two numbers of a head that rotary positions turn together side by side."""
    return weight.view(-1, 2, width // 2, weight.shape[1]).transpose(1, 2).flatten(0, 2)


_scripted = scripted(logits)


class Inference:
    """The weights of a model, packed: on a CPU a copy, which does not see later training."""

    def __init__(self, model: Model) -> None:
        """Pack the weights; it takes about as long as copying them."""
        config, self.device = model.config, model.device
        self.config, small = config, model.config.n_parameters <= SMALL
        with torch.inference_mode():
            self.embedding = model.embedding.detach().float()
            self.matrices = []
            width, named = config.head_width, dict(model.named_parameters())
            for layer in range(config.depth):
                queries, keys, values, out, up, down = (
                    named[f"transformer.h.{layer}.{part}.weight"] for part in PARTS
                )
                qkv = torch.cat([paired(queries, width), paired(keys, width), values])
                self.matrices += [matrix(weight, small=small) for weight in (qkv, out, up, down)]
            self.matrices.append(matrix(model.lm_head.weight, small=small))
            half = torch.arange(0, width, 2, device=self.device) / width
            angles = torch.arange(config.context, device=self.device)[:, None] / ROPE_BASE**half
            self.turns = torch.polar(torch.ones_like(angles), -angles)
            self.epsilon = torch.tensor(EPSILON, device=self.device)
            self.number_D = torch.arange(width, device=self.device)
            self.number_S = torch.arange(SLOTS, device=self.device)
            heads = torch.arange(config.n_head, device=self.device)
            self.kept_H1 = heads[:, None] // (config.n_head // config.n_keys)
            self.hidden_PS = torch.empty(0, 0, device=self.device)

    def prefill(self, prompt: list[int], pages: Pages, own: list[int]) -> Tensor:
        """Read a prompt into the pages ``own``; return the logits of what follows, 1V.

        They are not capped yet: the largest stays the largest.
        """
        given = [
            (token, place, own[place // SLOTS], place % SLOTS) for place, token in enumerate(prompt)
        ]
        return self._logits(given, pages, [])

    def table(self, rows: Sequence[list[int]], held: int) -> Table:
        """Return which pages to look at in steps whose longest row holds ``held`` of them."""
        config, slots = self.config, held * SLOTS
        if len(self.hidden_PS) < slots:
            self.hidden_PS = torch.full((slots, slots), float("-inf"), device=self.device).triu_(1)
        filled = [(pages + [0] * held)[:held] for pages in rows]
        pages_BM = torch.tensor(filled, device=self.device)
        kept_BHM1 = (pages_BM[:, None] * config.n_keys + self.kept_H1)[..., None]
        key_rows = (kept_BHM1 * config.head_width + self.number_D).flatten()
        value_rows = (kept_BHM1 * SLOTS + self.number_S).flatten()
        return Table(
            self.hidden_PS[:slots, :slots],
            key_rows,
            torch.arange(0, len(key_rows), config.head_width, device=self.device),
            value_rows,
            torch.arange(0, len(value_rows), slots, device=self.device),
        )

    def decode(self, rows: Sequence[Sequence[int]], pages: Pages, table: Table) -> Tensor:
        """Return the logits of what follows the next token of each row, BV, not capped yet.

        Args:
            rows: Of each row the next token, its place in the row, its page and its slot there.
            pages: Keys and values of the tokens before; those of the new ones are stored.
            table: Which pages the rows have.
        """
        return self._logits(rows, pages, list(table))

    def _logits(self, given: Sequence[Sequence[int]], pages: Pages, table: list[Tensor]) -> Tensor:
        # or it would look at each new shape anew
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return _scripted(
                torch.tensor(given, device=self.device).T.contiguous(),
                self.turns,
                self.embedding,
                self.matrices,
                pages.keys,
                pages.values,
                table,
                self.epsilon,
                self.config.n_head,
            )
