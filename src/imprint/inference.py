"""The model as it answers: the same mathematics as ``model.py``, arranged for few tokens at a time.

What a row gets is the same to the last bit whoever shares the step. That takes sums whose order
does not depend on how many rows there are, how long they are or how many threads work:

- products add up every number in the same order, see ``products.py``;
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
from imprint.pace import Pace
from imprint.pages import SLOTS, Pages
from imprint.products import added, matrix, normal, normal_product, weighted

SMALL = 50_000_000
"""Parameters up to which each matrix is kept a second time, for one row."""

PARTS = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a layer."""

Function = TypeVar("Function", bound=Callable[..., object])


class Table(NamedTuple):
    """Which pages the rows of a step have; it serves until a row joins, leaves or needs another."""

    hidden_PS: Tensor
    """For each place of a token, minus infinity at the slots behind it."""
    query_rows: Tensor
    """Of each row, head and page, its row among those of all queries and new keys."""
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


def logits(
    given_4N: Tensor,
    place: list[int],
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
        place: Page and slot of a token that comes alone.
        turns: Rotary positions of each place, as complex numbers.
        embedding: VC.
        matrices: Four a layer (queries, keys and values; out; up; down), and that of the head.
        keys: Of all layers, in pages; then the rows of each layer. New ones are stored.
        values: The same.
        table: A ``Table``; empty for a prompt.
        epsilon: Added to a mean square.
        heads: H.
    """
    ids, places, pages, slots = given_4N.unbind()
    count = ids.size(0)
    depth, kept, width = keys[0].size(0), keys[0].size(2), keys[0].size(3)
    both = heads + kept
    if count == 1:
        into_keys = keys[0].select(1, place[0]).select(3, place[1]).unbind()
        into_values = values[0].select(1, place[0]).select(2, place[1]).unbind()
    else:
        into_keys = keys[0].permute(0, 1, 4, 2, 3).unbind()
        into_values = values[0].transpose(2, 3).unbind()
    turns_N1 = turns.index_select(0, places).unsqueeze(1)
    hidden_B1S = table[0].index_select(0, places).unsqueeze(1) if len(table) > 0 else epsilon
    x = normal(embedding.index_select(0, ids), epsilon)
    for layer in range(depth):
        qkv = normal_product(x, matrices[4 * layer], epsilon, False).view(count, -1, width)
        turned = qkv[:, :both]
        torch.view_as_complex(turned.view(count, both, width // 2, 2)).mul_(turns_N1)
        turned = normal(turned, epsilon)
        new_keys, new_values = turned[:, heads:], qkv[:, both:]
        if count == 1:
            into_keys[layer].copy_(new_keys[0])
            into_values[layer].copy_(new_values[0])
        else:
            into_keys[layer].index_put_([pages, slots], new_keys)
            into_values[layer].index_put_([pages, slots], new_values)
        if len(table) == 0:
            mixed = functional.scaled_dot_product_attention(
                turned[:, :heads].transpose(0, 1).unsqueeze(0),
                new_keys.transpose(0, 1).unsqueeze(0),
                new_values.transpose(0, 1).unsqueeze(0),
                is_causal=True,
                enable_gqa=heads != kept,
            )[0].transpose(0, 1)
        else:
            queries = turned.view(-1, width).index_select(0, table[1]).view(-1)
            scores = weighted(keys[1 + layer], table[2], table[3], queries)
            odds = torch.add(hidden_B1S, scores.view(count, heads, -1), alpha=width**-0.5)
            odds = torch.softmax(odds, -1).view(-1)
            mixed = weighted(values[1 + layer], table[4], table[5], odds)
        x = added(mixed.reshape(count, heads * width), matrices[4 * layer + 1], x)
        wide = normal_product(x, matrices[4 * layer + 2], epsilon, True).view(count, -1)
        x = added(wide.mul_(wide), matrices[4 * layer + 3], x)
    last = x if len(table) > 0 else x[-1:]
    return normal_product(last, matrices[-1], epsilon, False).view(last.size(0), -1)


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
        self.paces: dict[int, Pace] = {}
        """Of steps with so many rows, as a power of two."""
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
        both = config.n_head + config.n_keys
        query_rows = torch.arange(len(rows) * both, device=self.device).view(-1, both, 1)
        return Table(
            self.hidden_PS[:slots, :slots],
            query_rows[:, : config.n_head].expand(-1, -1, held).flatten(),
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
                [*given[0][2:]],
                self.turns,
                self.embedding,
                self.matrices,
                [pages.keys, *pages.key_rows],
                [pages.values, *pages.value_rows],
                table,
                self.epsilon,
                self.config.n_head,
            )
