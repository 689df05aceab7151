"""What goes through the model at once.

Shape letters used in this file: B rows in a batch, T tokens in a row, N supervised positions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch


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

    def parts(self, most: int) -> Iterator["Batch"]:
        """Yield the rows in batches of at most ``most`` tokens, padding included, in order."""
        length = self.ids_BT.shape[1]
        rows = max(1, most // length)
        if rows >= len(self.ids_BT):
            yield self
            return
        where_N = self.where_N
        if where_N is None:
            where_N = torch.arange(len(self.labels_N))
        where_N = where_N[: len(self.labels_N)]
        for start in range(0, len(self.ids_BT), rows):
            inside = (where_N >= start * length) & (where_N < (start + rows) * length)
            yield Batch(
                self.ids_BT[start : start + rows],
                where_N[inside] - start * length,
                self.labels_N[inside],
                self.supervised,
                self.tokens,
            )

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on ``device``."""
        if device.type == "cpu":
            return self
        ids_BT, where_N, labels_N = (
            tensor if tensor is None else tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.ids_BT, self.where_N, self.labels_N)
        )
        assert ids_BT is not None and labels_N is not None
        return Batch(ids_BT, where_N, labels_N, self.supervised, self.tokens)


class Data(Protocol):
    """Batches in a fixed order."""

    steps: int

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return the share of ``rank`` in the batch of ``step``: every ``world``-th row."""
