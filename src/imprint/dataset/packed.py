"""What mid and sft train on, for GPUs: rows of the whole context, filled with conversations.

Shape letters used in this file: B rows in a batch, T tokens in a row.
"""

from collections.abc import Sequence

import numpy as np

from imprint.dataset.batch import Batch, rows_in, shared_out
from imprint.dataset.mixture import Mixture, Share
from imprint.dataset.order import POOL, Numbers, best_fit, randomness
from imprint.tokenizer import Tokenizer


class Packed:
    """Conversations in rows of one length, whole and apart from each other."""

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
        """Arrange the conversations of ``shares`` into rows; see `Mixture` for long ones.

        A conversation's last token is a label and no input, so that one of ``context`` + 1 tokens
        fills a row.

        Args:
            shares: Conversations of each store.
            tokenizer: That made the ids.
            context: T.
            batch_tokens: Tokens in an optimizer step, filler included. The last step may have less.
            seed: Of every choice.
            joined: Share of the conversations that go into talks of several.

        Raises:
            ConfigError: No conversation fits, or ``batch_tokens`` is less than a row.
        """
        self.batch_rows = rows_in(batch_tokens, context)
        self.mixture = Mixture(
            shares, context=context, end=tokenizer.assistant_end, joined=joined, seed=seed
        )
        self.bos, self.context = tokenizer.bos, context
        lengths = self.mixture.lengths - 1
        waiting = randomness("order", seed).permutation(len(lengths))
        members: list[Numbers] = []
        rest = waiting[:0]
        for start in range(0, len(waiting), POOL):
            pool = np.concatenate([rest, waiting[start : start + POOL]])
            final = start + POOL >= len(waiting)
            rows, left = best_fit(lengths[pool], context, crop=False, final=final)
            members += [pool[row] for row in rows]
            rest = pool[left]
        mixed = randomness("rows", seed).permutation(len(members))
        members = [members[row] for row in mixed.tolist()]
        self.members = np.concatenate(members)
        """The conversations of each row, row after row."""
        self.ends = np.cumsum([0, *map(len, members)])
        """Where the rows begin in ``members``, and where the last ends."""
        self.rows = len(members)
        self.steps = -(-self.rows // self.batch_rows)
        self.efficiency = round(int(lengths.sum()) / (self.rows * context), 4)
        """Share of the tokens that are not filler."""

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``."""
        first = step * self.batch_rows
        ends = self.ends[first : first + self.batch_rows + 1]
        members, counts = self.members[ends[0] : ends[-1]], np.diff(ends)
        ids, spoken = self.mixture.read(members)
        lengths = self.mixture.lengths[members]
        stops = np.cumsum(lengths)
        label, given = np.ones(len(ids), dtype=np.bool_), np.ones(len(ids), dtype=np.bool_)
        label[stops - lengths], given[stops - 1] = False, False
        numbers = np.arange(len(members)) - np.repeat(ends[:-1] - ends[0], counts)
        filled: Numbers = np.add.reduceat(lengths - 1, ends[:-1] - ends[0])
        real = np.arange(self.context) < filled[:, None]
        inputs, labels = (np.full(real.shape, self.bos) for _ in range(2))
        inputs[real], labels[real] = ids[given], ids[label]
        wanted = np.zeros_like(real)
        wanted[real] = spoken[label]
        documents = np.broadcast_to(counts[:, None], real.shape).copy()
        documents[real] = np.repeat(numbers, lengths - 1)
        return shared_out(
            inputs,
            labels,
            wanted,
            tokens=int(filled.sum()),
            rank=rank,
            world=world,
            documents_BT=documents,
        )
