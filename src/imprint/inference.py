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
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imprint import fused
from imprint.fused import EPSILON
from imprint.model import ROPE_BASE, Model
from imprint.pace import Pace
from imprint.pages import SLOTS, Pages, offsets
from imprint.products import added, matrix, normal, product, safe_scale, weighted

TINY = 1e-15
"""Keeps a row of zeros from being divided by its length."""

SMALL = 50_000_000
"""Parameters up to which each matrix is kept a second time, for one row."""

PARTS = ("attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a layer."""


class Table(NamedTuple):
    """Which pages the rows of a step have; it serves until a row joins, leaves or needs another."""

    hidden_P1S: Tensor
    """For each place of a token, minus infinity at the slots behind it."""
    query_rows: Tensor
    """Of each row, head and page, its row among those of all queries, new keys and new values."""
    key_rows: Tensor
    """Of each row, head and page, its D rows among the rows of all keys."""
    key_starts: Tensor
    value_rows: Tensor
    """Of each row and head, its S rows among the rows of all values."""
    value_starts: Tensor
    lengths_B1: Tensor
    """Of each row, the length it is scaled to before a product."""
    ones: Tensor
    """Of each row and head of queries and keys, one."""


def paired(weight: Tensor, width: int) -> Tensor:
    """Put the two numbers of a head that rotary positions turn together side by side."""
    return weight.view(-1, 2, width // 2, weight.shape[1]).transpose(1, 2).flatten(0, 2)


class Step(nn.Module):
    """The weights of a model, packed, and what is done with them."""

    matrices: list[list[Tensor]]

    def __init__(self, model: Model) -> None:
        """Pack the weights; it takes about as long as copying them."""
        super().__init__()
        config, device = model.config, model.device
        small = config.n_parameters <= SMALL
        self.heads, self.kept, self.width = config.n_head, config.n_keys, config.head_width
        self.depth, self.length = config.depth, config.width**0.5
        self.embedding = fused.rms_norm(model.embedding.detach().float() + TINY)
        """VC, normalised."""
        self.matrices = []
        """Four a layer (queries, keys and values; out; up; down), and that of the head."""
        width, named = self.width, dict(model.named_parameters())
        for layer in range(self.depth):
            queries, keys, values, out, up, down = (
                named[f"transformer.h.{layer}.{part}.weight"] for part in PARTS
            )
            qkv = torch.cat([paired(queries, width), paired(keys, width), values])
            self.matrices += [matrix(weight, small=small) for weight in (qkv, out, up, down)]
        self.matrices.append(matrix(model.lm_head.weight, small=small))
        half = torch.arange(0, width, 2, device=device) / width
        angles = torch.arange(config.context, device=device)[:, None] / ROPE_BASE**half
        self.turns = torch.polar(torch.ones_like(angles), -angles)[:, None]
        """Rotary positions of each place and any head, as complex numbers."""
        self.epsilon = torch.tensor(EPSILON, device=device)
        self.slots, self.offsets = SLOTS, offsets(config).to(device)

    def forward(
        self,
        given_4N: Tensor,
        alone: list[int],
        memory: list[Tensor],
        table: list[Tensor],
    ) -> Tensor:
        """Return the logits of what follows, not capped yet: NV, or 1V after a prompt.

        Args:
            given_4N: The next token of each row, or all tokens of one prompt: the ids, their places
                in the row, their pages, and their slots there.
            alone: The same of a token that comes alone: then ``given_4N`` is not looked at.
            memory: See ``Pages``; new keys and values are stored.
            table: A ``Table``; empty for a prompt.
        """
        heads, kept, width, depth = self.heads, self.kept, self.width, self.depth
        both, matrices = heads + kept, self.matrices
        # TorchScript wants all of them, looked at or not
        into = pages = slots = given_4N
        into_keys = into_values = memory
        hidden_N1S = self.epsilon
        if alone:
            token, place, page, slot = alone
            x = self.embedding.narrow(0, token, 1)
            turns_N1 = self.turns.narrow(0, place, 1)
            into = self.offsets.narrow(0, slot, 1).add(page * self.offsets.numel())
            if table:
                hidden_N1S = table[0].narrow(0, place, 1)
        else:
            ids, places, pages, slots = given_4N.unbind()
            x = self.embedding.index_select(0, ids)
            turns_N1 = self.turns.index_select(0, places)
            keys, values = memory[0].unbind(2)
            keys = keys.view(depth, -1, kept, width, self.slots).permute(0, 1, 4, 2, 3)
            values = values.view(depth, -1, kept, self.slots, width).transpose(2, 3)
            into_keys, into_values = keys.unbind(), values.unbind()  # type: ignore[assignment]
            if table:
                hidden_N1S = table[0].index_select(0, places)
        count = x.size(0)
        if table:
            lengths_N1, ones_N1 = table[6], table[7]
        else:
            lengths_N1 = torch.full([count, 1], self.length, device=x.device)
            ones_N1 = torch.ones([count * both, 1], device=x.device)
        for layer in range(depth):
            qkv = product(normal(x, lengths_N1), matrices[4 * layer]).view(count, -1, width)
            turned = qkv.narrow(1, 0, both)
            torch.view_as_complex(turned.view(count, both, width // 2, 2)).mul_(turns_N1)
            scales = safe_scale(turned.reshape(-1, width), ones_N1, self.epsilon)
            turned.mul_(scales.view(count, both, 1))
            new = qkv.narrow(1, heads, 2 * kept)
            if alone:
                memory[1 + layer].put_(into, new)
            else:
                new_keys, new_values = new.split_with_sizes([kept, kept], 1)
                into_keys[layer].index_put_([pages, slots], new_keys)
                into_values[layer].index_put_([pages, slots], new_values)
            if not table:
                mixed = functional.scaled_dot_product_attention(
                    qkv.narrow(1, 0, heads).transpose(0, 1).unsqueeze(0),
                    new.narrow(1, 0, kept).transpose(0, 1).unsqueeze(0),
                    new.narrow(1, kept, kept).transpose(0, 1).unsqueeze(0),
                    is_causal=True,
                    enable_gqa=heads != kept,
                )[0].transpose(0, 1)
            else:
                weights = qkv.view(-1, width).index_select(0, table[1]).view(-1)
                scores = weighted(memory[1 + layer], table[2], table[3], weights)
                odds = torch.add(hidden_N1S, scores.view(count, heads, -1), alpha=width**-0.5)
                odds = torch._softmax(odds, -1, False).view(-1)
                mixed = weighted(memory[1 + depth + layer], table[4], table[5], odds)
            x = added(mixed.reshape(count, -1), matrices[4 * layer + 1], x)
            wide = product(normal(x, lengths_N1), matrices[4 * layer + 2], True)
            x = added(wide.mul_(wide), matrices[4 * layer + 3], x)
        if not table:
            x, lengths_N1 = x[-1:], lengths_N1[-1:]
        return product(normal(x, lengths_N1), matrices[-1])


def scripted(step: Step) -> Step:
    """Return ``step`` in TorchScript, or as it is where this Python has none.

    A step is 150 short calls. TorchScript makes them without Python in between, and without its
    lock, which a server needs meanwhile: 1.27 instead of 1.55 ms for one row of d4. It is
    deprecated for what takes seconds to compile, ``torch.compile``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.set_fusion_strategy([])  # its first calls are not timed to make others faster
        try:
            made: Any = torch.jit.script(step)
        except RuntimeError:  # an operation or a Python that it does not know
            return step
    return made  # type: ignore[no-any-return]


class Inference:
    """A model as it was when packed: on a CPU a copy, which does not see later training."""

    def __init__(self, model: Model) -> None:
        """Pack the weights; it takes about as long as copying them."""
        self.config, self.device = model.config, model.device
        self.paces: dict[int, Pace] = {}
        """Of steps with so many rows, as a power of two."""
        with torch.inference_mode():
            self.step = scripted(Step(model))
            self._forward: Callable[..., Tensor] = self.step.forward  # without hooks: 5 us less
            self._nothing = torch.empty(4, 0, dtype=torch.int64, device=self.device)
            self.number_D = torch.arange(self.config.head_width, device=self.device)
            self.number_S = torch.arange(SLOTS, device=self.device)
            heads = torch.arange(self.config.n_head, device=self.device)
            self.kept_H1 = heads[:, None] // (self.config.n_head // self.config.n_keys)
            self.hidden_P1S = torch.empty(0, 1, 0, device=self.device)

    def prefill(self, prompt: list[int], pages: Pages, own: list[int]) -> Tensor:
        """Read a prompt into the pages ``own``; return the logits of what follows, 1V.

        They are not capped yet: the largest stays the largest.
        """
        given = [
            (token, place, own[place // SLOTS], place % SLOTS) for place, token in enumerate(prompt)
        ]
        return self._logits(given, pages, ())

    def table(self, rows: Sequence[list[int]], held: int) -> Table:
        """Return which pages to look at in steps whose longest row holds ``held`` of them."""
        config, slots = self.config, held * SLOTS
        if len(self.hidden_P1S) < slots:
            hidden_PS = torch.full((slots, slots), float("-inf"), device=self.device).triu_(1)
            self.hidden_P1S = hidden_PS[:, None]
        filled = [(pages + [0] * held)[:held] for pages in rows]
        pages_BM = torch.tensor(filled, device=self.device)
        # a page is the keys of each head, then the values of each head
        kept_BHM1 = (pages_BM[:, None] * 2 * config.n_keys + self.kept_H1)[..., None]
        key_rows = (kept_BHM1 * config.head_width + self.number_D).flatten()
        value_rows = ((kept_BHM1 + config.n_keys) * SLOTS + self.number_S).flatten()
        both = config.n_head + config.n_keys
        parts = both + config.n_keys
        query_rows = torch.arange(len(rows) * parts, device=self.device).view(-1, parts, 1)
        return Table(
            self.hidden_P1S[:slots, :, :slots],
            query_rows[:, : config.n_head].expand(-1, -1, held).flatten(),
            key_rows,
            torch.arange(0, len(key_rows), config.head_width, device=self.device),
            value_rows,
            torch.arange(0, len(value_rows), slots, device=self.device),
            torch.full((len(rows), 1), self.step.length, device=self.device),
            torch.ones(len(rows) * both, 1, device=self.device),
        )

    def decode(self, rows: Sequence[Sequence[int]], pages: Pages, table: Table) -> Tensor:
        """Return the logits of what follows the next token of each row, BV, not capped yet.

        Args:
            rows: Of each row the next token, its place in the row, its page and its slot there.
            pages: Keys and values of the tokens before; those of the new ones are stored.
            table: Which pages the rows have.
        """
        return self._logits(rows, pages, table)

    def _logits(
        self, given: Sequence[Sequence[int]], pages: Pages, table: Sequence[Tensor]
    ) -> Tensor:
        alone = given[0] if len(given) == 1 else ()
        given_4N = self._nothing
        if not alone:
            given_N4 = np.array(given, dtype=np.int64)
            given_4N = torch.from_numpy(given_N4.T.copy()).to(self.device)
        logits: Tensor = self._forward(given_4N, alone, pages.memory, table)
        return logits
