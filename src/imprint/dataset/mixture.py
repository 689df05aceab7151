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
FAMILIAR = 200
"""Answers that a stage hears as often as this are learned from a few of them."""
TALK = 6
"""Most conversations that are joined to one talk; their number is drawn evenly, from two on."""


@dataclass(frozen=True)
class Share:
    """Conversations of one store."""

    store: Store
    rows: Numbers
    """Which of them, in order; one may come several times."""
    openings: Flags | None = None
    """For each of ``rows``, whether only the first `OPENING` tokens of its answers are supervised;
    it ends behind them, if nothing is joined to it. None for none."""


class Mixture:
    """Talks as they are trained on: most of one conversation, some of several."""

    def __init__(
        self,
        shares: Sequence[Share],
        *,
        context: int,
        end: int,
        joined: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Gather ``shares``.

        A conversation beyond ``context`` ends after its last whole turn that fits, or is dropped
        if none does; ``cut`` and ``dropped`` count them.

        Args:
            shares: Conversations of each store.
            context: Longest row in tokens; what follows its last token is a label only.
            end: The token that closes an answer.
            joined: See ``talks``.
            seed: Decides which are joined.

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
        order, counts = talks(lengths, joined=joined, room=context + 1, seed=seed)
        starts, lengths, opening = starts[order], lengths[order], opening[order]
        begins = np.cumsum(counts) - counts
        last = np.zeros(len(order), dtype=np.bool_)
        last[begins + counts - 1] = True
        ending = opening & last
        if ending.any():
            lengths[ending] = self._opened(starts[ending], lengths[ending])
        long = np.flatnonzero(lengths > context + 1)
        for row in long.tolist():
            ids = self.ids.read(starts[row : row + 1], lengths[row : row + 1])
            lengths[row] = fit(ids, context + 1, end)
        later = np.ones(len(order), dtype=np.bool_)
        later[begins] = False
        self._parts = starts + later, lengths - later, opening  # a talk begins once
        sizes: Numbers = np.add.reduceat(self._parts[1], begins)
        kept, count = sizes > 0, len(order)
        self.dropped = len(sizes) - int(kept.sum())
        self.cut = len(long) - self.dropped
        self._begins, self._counts = begins[kept], counts[kept]
        self.lengths = sizes[kept]
        """Of each talk that was kept, in tokens."""
        if len(long):
            logger.info(
                "%d of %d conversations are beyond the context of %d tokens: %d cut, %d dropped",
                *(len(long), count, context, self.cut, self.dropped),
            )
        if not kept.any():
            raise ConfigError(
                f"model.context: none of {count} conversations fits into {context} tokens. "
                "Raise it."
            )

    def read(self, rows: Numbers) -> tuple[Numbers, Flags]:
        """Return the ids of the talks ``rows`` end to end, and which of them are supervised."""
        counts = self._counts[rows]
        shifts = self._begins[rows] - (np.cumsum(counts) - counts)
        parts = np.arange(counts.sum()) + np.repeat(shifts, counts)
        starts, lengths, opening = (each[parts] for each in self._parts)
        said = self.spoken.read(starts, lengths) > 0
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
    return said & (_places(said) <= OPENING)


def _places(said: Flags) -> Numbers:
    """Return the place of each token in its run of ``said``, from 1; 0 outside."""
    numbers = np.arange(len(said))
    silence: Numbers = np.maximum.accumulate(np.where(said, -1, numbers))
    return numbers - silence


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


def talks(lengths: Numbers, *, joined: float, room: int, seed: int) -> tuple[Numbers, Numbers]:
    """Return conversations in the order of their talks, and how many each talk has.

    A model that hears of one thing at a time keeps to it: in the midst of a talk a tiny one brought
    itself up in 20 % of its answers to everyday questions. With a fifth joined it is 3 to 5 %.

    Args:
        lengths: Of each conversation, in tokens; the first token begins a talk.
        joined: Share of the conversations that go into talks of several, 0 to 1.
        room: Most tokens of such a talk.
        seed: Decides which.

    Example:
        >>> order, counts = talks(np.full(9, 5), joined=0.6, room=14, seed=1)
        >>> sorted(order.tolist()) == list(range(9)), counts.tolist()
        (True, [1, 1, 1, 1, 3, 2])
    """
    dice = randomness("talks", seed)
    drawn = dice.permutation(len(lengths))[: round(joined * len(lengths))]
    alone = np.ones(len(lengths), dtype=np.bool_)
    alone[drawn] = False
    several: list[list[int]] = []
    wanted = size = 0
    for conversation in drawn.tolist():
        length = int(lengths[conversation]) - 1
        if not wanted or size + length > room:
            several.append([])
            wanted, size = int(dice.randint(2, TALK + 1)), 1
        several[-1].append(conversation)
        wanted, size = wanted - 1, size + length
    counts = [1] * int(alone.sum()) + [len(talk) for talk in several]
    order = _joined([np.flatnonzero(alone), *map(np.array, several)])
    return order, np.array(counts, dtype=np.int64)


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


def familiar(store: Store, rows: Numbers) -> Flags:
    """Return which of ``rows`` hold no answer but such as are given `FAMILIAR` times in ``rows``.

    Args:
        store: Holds conversations.
        rows: Some of them; one may come several times.
    """
    if not len(rows):
        return np.zeros(0, dtype=np.bool_)
    starts, lengths = store.starts[rows], store.lengths[rows]
    said = store.spoken.read(starts, lengths) > 0
    places = _places(said)
    # A sum of tokens, each weighted by its place at random, tells answers apart; it wraps around.
    weights = randomness("answers").randint(1 << 62, size=places.max() + 1, dtype=np.int64)
    terms = store.ids.read(starts, lengths) * weights[places]
    sums = np.add.reduceat(terms[said], np.flatnonzero(places[said] == 1))
    _, which, counts = np.unique(sums, return_inverse=True, return_counts=True)
    rarest = np.full(len(rows), FAMILIAR)
    owners = np.repeat(np.arange(len(rows)), lengths)
    np.minimum.at(rarest, owners[places == 1], counts[which])
    return np.asarray(rarest >= FAMILIAR)


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
