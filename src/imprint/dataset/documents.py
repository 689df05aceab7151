"""What base trains on: documents in rows of one length, each row from a document's start.

Shape letters used in this file: B rows in a batch, T tokens in a row.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from imprint.dataset.batch import Batch, rows_in
from imprint.dataset.order import POOL, Numbers, best_fit, randomness
from imprint.dataset.store import Store
from imprint.errors import RecordError


class Documents:
    """Documents that fill rows of one length; every token is supervised.

    A row begins with a document's bos and holds whole documents but the last, which loses what does
    not fit. Rows are planned from lengths alone, pool by pool: a batch far ahead is found without
    reading a token.
    """

    def __init__(
        self,
        store: Store,
        *,
        context: int,
        batch_tokens: int,
        tokens: int | None,
        seed: int,
    ) -> None:
        """Arrange the documents of ``store``.

        Args:
            store: Documents; each begins with the bos token.
            context: T, unless all documents together are shorter.
            batch_tokens: Tokens in an optimizer step.
            tokens: Tokens to train on; the documents repeat, in another order, if they are too few.
                None for one pass, with a last batch that may be shorter.
            seed: Of the order.

        Raises:
            RecordError: There is no text at all.
            ConfigError: ``batch_tokens`` is less than a row.
        """
        if store.tokens < 2:
            raise RecordError(
                "corpus: no text to train on. Raise corpus.characters, or name more text in "
                "corpus.source."
            )
        self.store, self.seed = store, seed
        self.length = min(context, store.tokens - 1)
        self.batch_rows = rows_in(batch_tokens, self.length)
        self.bytes_per_token = store.text_bytes / store.tokens
        self.fitting = int(np.minimum(store.lengths, self.length + 1).sum())
        """Tokens that rows can hold: of a longer document, those of its first row."""
        self._restart()
        if tokens is None:
            pools = -(-len(store) // POOL)
            self.rows = sum(len(rows) for rows in itertools.islice(self._pools(), pools))
            self._restart()
            self.steps = -(-self.rows // self.batch_rows)
        else:
            self.steps = max(1, round(tokens / (self.batch_rows * self.length)))
            self.rows = self.steps * self.batch_rows

    @property
    def passes(self) -> float:
        """About how often the text is seen; `about` knows it once all rows are planned."""
        return self.rows * (self.length + 1) / self.fitting

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``."""
        first = step * self.batch_rows
        rows = self._between(first, min(first + self.batch_rows, self.rows))
        mine = rows[rank::world]
        ids = self._read(mine or rows[:1])
        tokens = len(rows) * self.length
        inputs = torch.from_numpy(np.ascontiguousarray(ids[:, :-1]))
        if not mine:  # nothing is left for this process, which still has to keep step
            nothing = torch.zeros(1, dtype=torch.long)
            return Batch(inputs, nothing, nothing[:0], supervised=tokens, tokens=tokens)
        labels = torch.from_numpy(ids[:, 1:].reshape(-1))
        return Batch(inputs, None, labels, supervised=tokens, tokens=tokens)

    def about(self) -> dict[str, Any]:
        """Return what the manifest should tell; free after the last batch.

        Before it, all rows have to be planned, which takes some seconds for ten million documents.
        """
        if self._end < self.rows:
            self._between(self.rows - 1, self.rows)
        return {
            "corpus_tokens": self.store.tokens,
            "passes": round(self._drawn / len(self.store) * self.rows / self._end, 3),
            "cropped": round(1 - self._end * (self.length + 1) / self._used, 4),
        }

    def _read(self, rows: list[list[int]]) -> Numbers:
        """Return the tokens of ``rows``, (B, T + 1)."""
        room = self.length + 1
        documents = np.array(list(itertools.chain.from_iterable(rows)), dtype=np.int64)
        taken = self.store.lengths[documents]
        lasts = np.cumsum([len(row) for row in rows]) - 1
        upto = np.cumsum(taken)
        over = np.diff(upto[lasts], prepend=0) - room
        taken[lasts] -= over
        return self.store.ids.read(self.store.starts[documents], taken).reshape(-1, room)

    def _restart(self) -> None:
        self._planned: list[list[int]] = []  # the documents of each row from _end backwards
        self._end = self._drawn = self._used = 0  # rows planned, documents taken up, their tokens
        self._source = self._pools()

    def _between(self, first: int, last: int) -> list[list[int]]:
        """Return the documents of the rows from ``first`` up to before ``last``."""
        if first < self._end - len(self._planned):
            self._restart()
        while self._end < last:
            keep = self._end - first
            self._planned = self._planned[-keep:] if keep > 0 else []
            rows = next(self._source)
            self._planned += rows
            self._end += len(rows)
        begin = self._end - len(self._planned)
        return self._planned[first - begin : last - begin]

    def _pools(self) -> Iterator[list[list[int]]]:
        """Yield rows, some thousand at a time, pass after pass."""
        lengths, room = self.store.lengths, self.length + 1
        rest = np.zeros(0, dtype=np.int64)
        for number in itertools.count():
            order = randomness("documents", self.seed, number).permutation(len(lengths))
            for start in range(0, len(order), POOL):
                fresh = order[start : start + POOL]
                pool = np.concatenate([rest, fresh])
                found, left = best_fit(np.minimum(lengths[pool], room), room, crop=True)
                rest, names = pool[left], pool.tolist()
                self._drawn += len(fresh)
                self._used += int(lengths[pool].sum() - lengths[rest].sum())
                mixed = randomness("rows", self.seed, number, start).permutation(len(found))
                yield [[names[place] for place in found[row]] for row in mixed.tolist()]
