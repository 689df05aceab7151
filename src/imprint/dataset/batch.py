"""What goes through the model at once.

Shape letters used in this file: B rows in a batch, T tokens in a row, N supervised positions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from imprint.dataset.order import Flags, Numbers
from imprint.errors import ConfigError

ROUND_N = 64
"""The count of supervised positions is filled up to a multiple of this: matrix kernels are made
anew, in 1 to 3 ms, for every new shape."""


@dataclass(frozen=True)
class Batch:
    """One process's share of the rows of an optimizer step."""

    ids_BT: torch.Tensor
    where_N: torch.Tensor | None
    """Supervised positions, as indices into the B x T tokens, then filler; None for all."""
    labels_N: torch.Tensor
    """The token that follows each of them, filler excluded."""
    supervised: int
    """Supervised positions over all processes."""
    tokens: int
    """Tokens that are not padding, over all processes."""
    documents_BT: torch.Tensor | None = None
    """Which conversation of its row each token belongs to, int32; they do not see each other. None
    where a row is one."""

    def parts(self, most: int) -> Iterator["Batch"]:
        """Yield the rows in batches of at most ``most`` tokens, padding included, in order."""
        length = self.ids_BT.shape[1]
        rows = max(1, most // length)
        if rows >= len(self.ids_BT):
            yield self
            return
        for start in range(0, len(self.ids_BT), rows):
            stop = start + rows
            where_N, inside = None, slice(start * length, stop * length)
            if self.where_N is not None:
                where_N = self.where_N[: len(self.labels_N)]
                edges = torch.tensor([inside.start, inside.stop])
                inside = slice(*torch.searchsorted(where_N, edges).tolist())
                where_N = filled(where_N[inside] - start * length)
            documents_BT = self.documents_BT
            yield replace(
                self,
                ids_BT=self.ids_BT[start:stop],
                where_N=where_N,
                labels_N=self.labels_N[inside],
                documents_BT=None if documents_BT is None else documents_BT[start:stop],
            )

    def pinned(self) -> "Batch":
        """Return the batch in memory that a GPU can fetch by itself."""
        return self._each(torch.Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on ``device``; if it is pinned, without waiting for the copy."""
        if device.type == "cpu":
            return self
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        where_N, documents_BT = self.where_N, self.documents_BT
        return replace(
            self,
            ids_BT=change(self.ids_BT),
            where_N=None if where_N is None else change(where_N),
            labels_N=change(self.labels_N),
            documents_BT=None if documents_BT is None else change(documents_BT),
        )


class Data(Protocol):
    """Batches in a fixed order."""

    steps: int

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``: every ``world``-th row."""


@runtime_checkable
class Even(Data, Protocol):
    """Batches of as many rows each, all of one length; the last may have fewer."""

    batch_rows: int


def shared_out(
    ids_BT: Numbers,
    labels_BT: Numbers,
    wanted_BT: Flags,
    *,
    tokens: int,
    rank: int,
    world: int,
    documents_BT: Numbers | None = None,
) -> Batch:
    """Return the share of ``rank`` in a batch of all these rows.

    A process for which no row is left gets one without labels, because it still has to keep step.

    Args:
        ids_BT: What the model reads.
        labels_BT: The token that follows each.
        wanted_BT: Which of the labels are supervised.
        tokens: Tokens that are not padding.
        rank: Number of this process.
        world: Count of the processes.
        documents_BT: As in `Batch`.
    """
    supervised = int(wanted_BT.sum())
    mine = slice(rank, None, world)
    if rank >= len(ids_BT):
        mine, wanted_BT = slice(0, 1), np.zeros_like(wanted_BT)
    wanted_BT = wanted_BT[mine]
    where_N = np.flatnonzero(wanted_BT)
    return Batch(
        torch.from_numpy(np.ascontiguousarray(ids_BT[mine])),
        filled(torch.from_numpy(where_N)),
        torch.from_numpy(labels_BT[mine][wanted_BT]),
        supervised=supervised,
        tokens=tokens,
        documents_BT=None
        if documents_BT is None
        else torch.from_numpy(documents_BT[mine].astype(np.int32)),
    )


def filled(where_N: torch.Tensor) -> torch.Tensor:
    """Return ``where_N`` and zeros behind it, so that it is as long as those of other batches."""
    count = max(1, -(-len(where_N) // ROUND_N)) * ROUND_N
    return torch.nn.functional.pad(where_N, (0, count - len(where_N)))


def rows_in(batch_tokens: int, length: int) -> int:
    """Return how many whole rows of ``length`` tokens a batch has.

    Raises:
        ConfigError: Not one.
    """
    if batch_tokens < length:
        raise ConfigError(
            f"batch_tokens: {batch_tokens} tokens are less than one row of {length}. "
            f"Raise it to {length} or more, or lower model.context."
        )
    return batch_tokens // length
