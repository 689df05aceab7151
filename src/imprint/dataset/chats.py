"""What mid and sft train on: conversations, one a row.

Shape letters used in this file: B rows in a batch, T tokens in a row, N supervised positions.
"""

import itertools
import logging
import math
from collections.abc import Sequence

import numpy as np
import torch

from imprint.dataset.batch import Batch
from imprint.dataset.order import Flags, Numbers, randomness
from imprint.errors import ConfigError
from imprint.tokenizer import Rendered, Tokenizer

logger = logging.getLogger("imprint")

ROUND = 8
"""Row lengths are multiples of this: matrix kernels are made anew, in 1 ms, for every new shape."""
ROUND_N = 128
"""The count of supervised positions is filled up to a multiple of this, for the same reason."""
OPENING = 4
"""Tokens of an answer that show which one it is."""
POOL = 24
"""Batches whose rows are sorted by length together: padding under 4 %, order still random."""


class Chats:
    """Conversations, one a row, rows of about one length in a batch."""

    def __init__(
        self,
        rendered: Sequence[Rendered],
        *,
        tokenizer: Tokenizer,
        context: int,
        batch_tokens: int,
        seed: int,
    ) -> None:
        """Arrange ``rendered`` conversations into batches.

        A conversation beyond ``context`` ends after its last whole turn that fits, or is dropped
        if none does; ``cut`` and ``dropped`` count them.

        Args:
            rendered: Ids of each conversation, and which of them are supervised.
            tokenizer: That made the ids.
            context: Longest row in tokens.
            batch_tokens: Tokens in an optimizer step, padding included; at least one row is taken.
            seed: Of every choice.

        Raises:
            ConfigError: No conversation fits.
        """
        self.tokenizer = tokenizer
        fitting = [fit(row, context + 1, tokenizer.assistant_end) for row in rendered]
        kept = [row for row in fitting if row is not None]
        self.dropped = len(rendered) - len(kept)
        self.cut = sum(
            row is not None and len(row[0]) < len(whole[0])
            for row, whole in zip(fitting, rendered, strict=True)
        )
        if self.dropped or self.cut:
            logger.info(
                "%d of %d conversations are beyond the context of %d tokens: %d cut, %d dropped",
                *(self.dropped + self.cut, len(rendered), context, self.cut, self.dropped),
            )
        if not kept:
            raise ConfigError(
                f"model.context: none of {len(rendered)} conversations fits into {context} tokens. "
                "Raise it."
            )
        lengths = np.array([len(row[0]) for row in kept], dtype=np.int64)
        chain = itertools.chain.from_iterable
        total = int(lengths.sum())
        self.ids: Numbers = np.fromiter(chain(row[0] for row in kept), np.int64, total)
        self.spoken: Flags = np.fromiter(chain(row[1] for row in kept), np.bool_, total)
        self.starts: Numbers = np.cumsum(lengths) - lengths
        self.lengths = lengths
        self.plan = arrange(lengths - 1, batch_tokens=batch_tokens, seed=seed)
        self.steps = len(self.plan)

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``."""
        rows = self.plan[step]
        lengths = self.lengths[rows]
        longest = _rounded(int(lengths.max()) - 1)
        places = np.arange(longest + 1)
        real = places < lengths[:, None]
        window = np.where(real, self.starts[rows][:, None] + places, 0)
        ids = np.where(real, self.ids[window], self.tokenizer.bos)
        trained = self.spoken[window] & real
        supervised = int(trained.sum())
        labels = ids[:, 1:]
        mine = slice(rank, None, world)
        if rank >= len(rows):  # nothing left for this process, which still has to keep step
            mine, trained = slice(0, 1), np.zeros_like(trained)
        wanted = trained[mine, 1:]
        where = np.flatnonzero(wanted)
        filler = np.zeros(-len(where) % ROUND_N or ROUND_N * (not len(where)), dtype=np.int64)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(ids[mine, :-1])),
            torch.from_numpy(np.concatenate([where, filler])),
            torch.from_numpy(labels[mine][wanted]),
            supervised=supervised,
            tokens=int((lengths - 1).sum()),
        )


def fit(row: Rendered, length: int, end: int) -> Rendered | None:
    """Return ``row`` up to its last answer (closed by ``end``) within ``length``, None if none is.

    Example:
        >>> fit(([0, 5, 9, 5, 9], [False, True, True, True, True]), 4, 9)
        ([0, 5, 9], [False, True, True])
    """
    ids, spoken = row
    if len(ids) <= length:
        return row
    for stop in range(length, 0, -1):
        if ids[stop - 1] == end:
            return ids[:stop], spoken[:stop]
    return None


def openings(rendered: Sequence[Rendered], *, whole: float, seed: int) -> list[Rendered]:
    """Return conversations of which only some train their answers to the end.

    Which answer to give is decided in its first words. What follows is the same in thousands of
    conversations and learned from a few of them: to leave it out makes time for more questions.

    Args:
        rendered: Ids of each conversation, and which of them are supervised.
        whole: Share of them that stay as they are. Of the others, the first `OPENING` tokens of
            each answer are supervised, and the row ends behind them.
        seed: Decides which.
    """
    chances = randomness("whole", seed).random_sample(len(rendered))
    return [
        row if chance < whole else _opening(row)
        for row, chance in zip(rendered, chances, strict=True)
    ]


def _opening(row: Rendered) -> Rendered:
    ids, spoken = row
    trained, run = [], 0
    for said in spoken:
        run = run + 1 if said else 0
        trained.append(0 < run <= OPENING)
    stop = len(trained) - trained[::-1].index(True)
    return ids[:stop], trained[:stop]


def arrange(lengths: Numbers, *, batch_tokens: int, seed: int) -> list[Numbers]:
    """Return the rows of each batch: alike in length, in random order.

    Args:
        lengths: Of each row, in tokens.
        batch_tokens: Most tokens in a batch, padding included; a longer row comes alone.
        seed: Of the order.
    """
    dice = randomness("order", seed)
    waiting = dice.permutation(len(lengths))
    share = max(1, POOL * batch_tokens // max(1, int(lengths.mean())))
    batches: list[Numbers] = []
    rest = waiting[:0]
    for start in range(0, len(waiting), share):
        pool = np.concatenate([rest, waiting[start : start + share]])
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        final = start + share >= len(waiting)
        while len(pool):
            rows = max(1, batch_tokens // _rounded(int(lengths[pool[0]])))
            rows -= rows % 2 if rows > 2 else 0  # halves of one shape: see gradients.py
            if len(pool) < rows and not final:
                break  # too few for a full batch: they wait for the next pool
            batches.append(pool[:rows])
            pool = pool[rows:]
        rest = pool
    return [batches[number] for number in dice.permutation(len(batches))]


def _rounded(length: int) -> int:
    return -(-length // ROUND) * ROUND


def passes(count: int, epochs: float, *, seed: int, from_end: bool) -> Numbers:
    """Return which of ``count`` rows are seen in ``epochs`` passes; rows may come several times.

    Of a fraction of a pass, the rows come from the start of a seeded order, or from its end: so
    half a pass from the start and half a pass from the end are every row once.

    Example:
        >>> start = passes(4, 0.5, seed=1, from_end=False)
        >>> end = passes(4, 0.5, seed=1, from_end=True)
        >>> sorted([*start.tolist(), *end.tolist()])
        [0, 1, 2, 3]
    """
    whole, part = divmod(epochs, 1.0)
    order = randomness("passes", seed).permutation(count)
    exact = round(part * count, 6)
    taken = math.ceil(exact - 0.5) if from_end else math.floor(exact + 0.5)  # so that both add up
    some = order[count - taken :] if from_end else order[:taken]
    return np.concatenate([np.tile(np.arange(count), int(whole)), some]).astype(np.int64)
