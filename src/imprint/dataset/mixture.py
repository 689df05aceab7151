"""Conversations of several stores, cut to what is trained on."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imprint.dataset.order import Flags, Numbers, randomness
from imprint.dataset.store import Store, Tape
from imprint.errors import ConfigError

logger = logging.getLogger("imprint")

OPENING = 4
"""Tokens of an answer that show which one it is."""


@dataclass(frozen=True)
class Share:
    """Conversations of one store."""

    store: Store
    rows: Numbers
    """Which of them, in order; one may come several times."""
    openings: Flags | None = None
    """For each of ``rows``, whether only the first `OPENING` tokens of its answers are supervised;
    it ends behind them. None for none."""


class Mixture:
    """Conversations one after another, as they are trained on."""

    def __init__(self, shares: Sequence[Share], *, context: int, end: int) -> None:
        """Gather ``shares``.

        A conversation beyond ``context`` ends after its last whole turn that fits, or is dropped
        if none does; ``cut`` and ``dropped`` count them.

        Args:
            shares: Conversations of each store.
            context: Longest row in tokens; what follows its last token is a label only.
            end: The token that closes an answer.

        Raises:
            ConfigError: No conversation fits.
        """
        self.ids = Tape([array for share in shares for array in share.store.ids.arrays])
        self.spoken = Tape([array for share in shares for array in share.store.spoken.arrays])
        offsets = np.cumsum([0, *(share.store.tokens for share in shares)])
        starts = _joined(
            share.store.starts[share.rows] + offset
            for share, offset in zip(shares, offsets.tolist(), strict=False)
        )
        lengths = _joined(share.store.lengths[share.rows] for share in shares)
        opening = _joined(
            np.zeros(len(share.rows)) if share.openings is None else share.openings
            for share in shares
        ).astype(np.bool_)
        if opening.any():
            lengths[opening] = self._opened(starts[opening], lengths[opening])
        long = np.flatnonzero(lengths > context + 1)
        for row in long.tolist():
            ids = self.ids.read(starts[row : row + 1], lengths[row : row + 1])
            lengths[row] = fit(ids, context + 1, end)
        kept = lengths > 0
        count = len(kept)
        self.dropped = count - int(kept.sum())
        self.cut = len(long) - self.dropped
        self.starts, self.lengths, self.opening = starts[kept], lengths[kept], opening[kept]
        """Of each conversation that was kept."""
        if len(long):
            logger.info(
                "%d of %d conversations are beyond the context of %d tokens: %d cut, %d dropped",
                *(len(long), count, context, self.cut, self.dropped),
            )
        if self.dropped == count:
            raise ConfigError(
                f"model.context: none of {count} conversations fits into {context} tokens. "
                "Raise it."
            )

    def read(self, rows: Numbers) -> tuple[Numbers, Flags]:
        """Return the ids of ``rows`` end to end, and which of them are supervised."""
        starts, lengths = self.starts[rows], self.lengths[rows]
        said = self.spoken.read(starts, lengths) > 0
        opening = self.opening[rows]
        if opening.any():
            said &= first_words(said) | ~np.repeat(opening, lengths)
        return self.ids.read(starts, lengths), said

    def _opened(self, starts: Numbers, lengths: Numbers) -> Numbers:
        """Return how long conversations are that end behind the first words of the last answer."""
        early = first_words(self.spoken.read(starts, lengths) > 0)
        begins = np.cumsum(lengths) - lengths
        lasts = np.maximum.reduceat(np.where(early, np.arange(len(early)), 0), begins)
        stops: Numbers = lasts + 1 - begins
        return stops


def _joined(arrays: Iterable[NDArray[Any]]) -> Numbers:
    return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])


def first_words(said: Flags) -> Flags:
    """Return which tokens are among the first `OPENING` of a run of ``said``.

    Example:
        >>> first_words(np.array([0, 1, 1, 1, 1, 1, 0, 1], dtype=bool)).astype(int).tolist()
        [0, 1, 1, 1, 1, 0, 0, 1]
    """
    places = np.arange(len(said))
    silence = np.maximum.accumulate(np.where(said, -1, places))
    return said & (places - silence <= OPENING)


def fit(ids: Numbers, length: int, end: int) -> int:
    """Return how many of ``ids`` are within ``length``, up to the last ``end``; 0 if none is.

    Example:
        >>> fit(np.array([0, 5, 9, 5, 9]), 4, 9)
        3
    """
    if len(ids) <= length:
        return len(ids)
    ends = np.flatnonzero(ids[:length] == end)
    return int(ends[-1]) + 1 if len(ends) else 0


def openings(count: int, *, whole: float, seed: int) -> Flags:
    """Return which of ``count`` conversations train the first words of their answers only.

    Which answer to give is decided in its first words. What follows is the same in thousands of
    conversations and learned from a few of them: to leave it out makes time for more questions.

    Args:
        count: Conversations.
        whole: Share of them that stay as they are.
        seed: Decides which.
    """
    chances = randomness("whole", seed).random_sample(count)
    return np.asarray(chances >= whole)


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
