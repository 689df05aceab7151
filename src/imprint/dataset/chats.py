"""What mid and sft train on: conversations, one a row, rows of about one length in a batch.

Shape letters used in this file: B rows in a batch, T tokens in a row.
"""

from collections.abc import Sequence

import numpy as np

from imprint.dataset.batch import Batch, shared_out
from imprint.dataset.mixture import Mixture, Share
from imprint.dataset.order import Numbers, randomness
from imprint.tokenizer import Tokenizer

ROUND = 4
"""Row lengths are multiples of this: matrix kernels are made anew, in 1 ms, for every new shape."""
POOL = 96
"""Batches whose rows are sorted by length together: padding of 5 %, order still random."""


class Chats:
    """Conversations, one a row, rows of about one length in a batch."""

    def __init__(
        self,
        shares: Sequence[Share],
        *,
        tokenizer: Tokenizer,
        context: int,
        batch_tokens: int,
        seed: int,
        joined: float = 0.0,
    ) -> None:
        """Arrange the conversations of ``shares`` into batches; see `Mixture` for long ones.

        Args:
            shares: Conversations of each store.
            tokenizer: That made the ids.
            context: Longest row in tokens.
            batch_tokens: Tokens in an optimizer step, padding included; at least one row is taken.
            seed: Of every choice.
            joined: Share of the conversations that go into talks of several.

        Raises:
            ConfigError: No conversation fits.
        """
        self.mixture = Mixture(
            shares, context=context, end=tokenizer.assistant_end, joined=joined, seed=seed
        )
        self.bos = tokenizer.bos
        lengths = self.mixture.lengths
        self.plan = arrange(lengths - 1, batch_tokens=batch_tokens, seed=seed)
        self.steps = len(self.plan)

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``."""
        rows = self.plan[step]
        lengths = self.mixture.lengths[rows]
        places = np.arange(_rounded(int(lengths.max()) - 1) + 1)
        real = places < lengths[:, None]
        ids, spoken = np.full(real.shape, self.bos), np.zeros_like(real)
        ids[real], spoken[real] = self.mixture.read(rows)
        return shared_out(
            ids[:, :-1],
            ids[:, 1:],
            spoken[:, 1:],
            tokens=int((lengths - 1).sum()),
            rank=rank,
            world=world,
        )


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
