"""Keys and values in pages: rows of any length come and go without moving anything.

Shape letters used in this file: P pages, K heads of keys and values, D width of a head, S slots of
a page, N tokens.
"""

import torch

from imprint.shape import ModelConfig

SLOTS = 32
"""S, tokens in a page."""
FIRST = 32
"""Pages to begin with; after that their number doubles."""


class Pages:
    """The memory of a model's layers, in pages of ``SLOTS`` tokens.

    Keys lie with their slots side by side, values with their numbers side by side, because
    ``Inference`` adds up rows of both. Page 0 belongs to nobody and fills up short rows.
    """

    def __init__(self, config: ModelConfig, *, device: torch.device, most: int) -> None:
        """Prepare memory of up to ``most`` bytes, in float32."""
        heads = config.n_keys * config.head_width * SLOTS
        self.most = max(1, most // (2 * 4 * config.depth * heads))
        """Pages that may be handed out at a time; more if one row alone needs more."""
        shape = (config.depth, 1, config.n_keys, config.head_width, SLOTS)
        self.keys = torch.zeros(shape, device=device)
        """LPKDS."""
        self.values = self.keys.transpose(3, 4).contiguous()
        """LPKSD."""
        self._rows()
        self.free: list[int] = []
        self.taken = 0

    def take(self, tokens: int) -> list[int] | None:
        """Return pages for a row of ``tokens`` tokens, or None if there is no room for it now."""
        count = -(-tokens // SLOTS)
        if self.taken and self.taken + count > self.most:
            return None
        if count > len(self.free):
            self._grow(max(self.taken + count, 2 * (self.keys.size(1) - 1), FIRST))
        self.taken += count
        pages, self.free = self.free[:count], self.free[count:]
        return pages

    def give(self, pages: list[int]) -> None:
        """Take back what ``take`` handed out."""
        self.free += pages
        self.taken -= len(pages)

    def _grow(self, count: int) -> None:
        before = self.keys.size(1)
        self.keys, self.values = (
            torch.cat([old, old.new_zeros(len(old), 1 + count - before, *old.shape[2:])], 1)
            for old in (self.keys, self.values)
        )
        self._rows()
        self.free += range(before, 1 + count)

    def _rows(self) -> None:
        self.key_rows = self.keys.flatten(1, 3).unbind()
        """Of each layer, what ``Inference`` adds up."""
        self.value_rows = self.values.flatten(1, 3).unbind()
