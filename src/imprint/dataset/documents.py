"""What base trains on: documents in rows of one length.

Shape letters used in this file: B rows in a batch, T tokens in a row.
"""

import itertools
from collections.abc import Iterable

import numpy as np
import torch

from imprint.dataset.batch import Batch
from imprint.dataset.order import Numbers, randomness
from imprint.errors import RecordError
from imprint.tokenizer import Tokenizer

DOCUMENTS = 10_000
"""Documents tokenised at a time."""


class Documents:
    """Documents end to end, cut into rows of one length; every token is supervised."""

    def __init__(
        self,
        texts: Iterable[str],
        *,
        tokenizer: Tokenizer,
        context: int,
        batch_tokens: int,
        tokens: int | None,
        seed: int,
    ) -> None:
        """Tokenise ``texts``.

        Args:
            texts: Documents; each begins with the bos token.
            tokenizer: Turns them into ids.
            context: T, unless the texts are shorter.
            batch_tokens: Tokens in an optimizer step; at least one row is taken.
            tokens: Tokens to train on; the texts repeat, in another order, if they are too short.
                None for one pass.
            seed: Of the order.

        Raises:
            RecordError: There is no text at all.
        """
        size, source = 0, iter(texts)
        pieces = [np.zeros(0, dtype=np.int32)]
        while documents := list(itertools.islice(source, DOCUMENTS)):
            size += sum(len(text.encode()) for text in documents)
            for ids in tokenizer.encode_batch(documents):
                pieces.append(np.array([tokenizer.bos, *ids], dtype=np.int32))
        self.flat = np.concatenate(pieces)
        if len(self.flat) < 2:
            raise RecordError("corpus: no text to train on. Raise corpus.characters.")
        self.length = min(context, len(self.flat) - 1)
        self.rows = (len(self.flat) - 1) // self.length
        self.batch_rows = max(1, batch_tokens // self.length)
        wanted = self.rows * self.length if tokens is None else tokens
        self.batch_rows = min(self.batch_rows, self.rows)
        self.steps = max(1, round(wanted / (self.batch_rows * self.length)))
        self.bytes_per_token = size / len(self.flat)
        self.seed = seed

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``."""
        places = np.arange(step * self.batch_rows, (step + 1) * self.batch_rows)
        rows = [int(self._pass(place // self.rows)[place % self.rows]) for place in places.tolist()]
        mine = rows[rank::world]
        starts = np.array(mine or rows[:1], dtype=np.int64) * self.length
        window = starts[:, None] + np.arange(self.length + 1)
        ids = self.flat[window].astype(np.int64)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(ids[:, :-1])),
            None,
            torch.from_numpy(ids[:, 1:].reshape(-1)) if mine else torch.zeros(0, dtype=torch.long),
            supervised=self.batch_rows * self.length,
            tokens=self.batch_rows * self.length,
        )

    def _pass(self, number: int) -> Numbers:
        if getattr(self, "_order", (None,))[0] != number:
            order = randomness("documents", self.seed, int(number)).permutation(self.rows)
            self._order = (number, order)
        chosen: Numbers = self._order[1]
        return chosen
