"""What rows have seen so far, so that each new token costs one step.

Shape letters used in this file: L layers, B rows, T new tokens in a row, S slots of a cache,
K heads of keys and values, D width of a head, V tokens in the vocabulary.
"""

import torch
from torch import Tensor

from imprint.shape import ModelConfig


class Cache:
    """Keys and values of the tokens that each row has seen so far.

    Rows may be of different length: row ``b`` holds ``lengths_B[b]`` tokens, at the positions
    ``0 .. lengths_B[b] - 1``. What lies behind is filler that no query can see, because a query at
    position p sees the slots up to p, and slot p is written when the token at position p comes.

    A prompt batch is padded on the RIGHT; ``counts`` says how many tokens of each row are real.
    Prefill, then decode one token a row::

        cache = Cache(model.config, rows=B, length=S)
        logits_BV = model(ids_BT, cache=cache, counts=counts_B, last=True)
        while ...:
            ids_B1 = logits_BV.argmax(-1, keepdim=True)
            logits_BV = model(ids_B1, cache=cache, last=True)
            cache.keep(unfinished)  # optional: drop rows that are done (and drop them from ids_B1)
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        rows: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Make room for ``rows`` rows of up to ``length`` tokens (S, at most ``config.context``).

        Args:
            config: Of the model that will fill it.
            rows: B.
            length: S, in tokens: prompt and answer together.
            device: Where the model lives.
            dtype: That of the model's parameters.

        Raises:
            ValueError: ``length`` is beyond the model's context.
        """
        if length > config.context:
            raise ValueError(f"a cache of {length} tokens is beyond the context {config.context}")
        shape = (config.depth, rows, config.n_keys, length, config.head_width)
        self.keys_LBKSD = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBKSD = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths_B = torch.zeros(rows, dtype=torch.long, device=device)
        self.longest = 0
        """At least the largest of ``lengths_B``, known without asking the device."""

    def keep(self, rows: Tensor) -> None:
        """Keep only ``rows``: indices (int64), or a mask (bool) over the rows there are."""
        self.keys_LBKSD = self.keys_LBKSD[:, rows]
        self.values_LBKSD = self.values_LBKSD[:, rows]
        self.lengths_B = self.lengths_B[rows]

    def room(self, tokens: int) -> int:
        """Return how many slots are in use once ``tokens`` more have come.

        Raises:
            ValueError: They do not fit.
        """
        used, length = self.longest + tokens, self.keys_LBKSD.shape[3]
        if used > length:
            raise ValueError(f"{used} tokens do not fit into a cache of {length}")
        return used

    def put(
        self, layer: int, keys_BTKD: Tensor, values_BTKD: Tensor, used: int
    ) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values; return all of them, up to slot ``used``."""
        keys, values = self.keys_LBKSD[layer], self.values_LBKSD[layer]
        length = keys_BTKD.shape[1]
        if self.longest == 0:
            keys[:, :, :length] = keys_BTKD.transpose(1, 2)
            values[:, :, :length] = values_BTKD.transpose(1, 2)
        else:
            slots_BT = self.lengths_B[:, None] + torch.arange(length, device=keys.device)
            slots_BT = slots_BT.clamp_(max=keys.shape[2] - 1)
            rows_B1 = torch.arange(len(keys), device=keys.device)[:, None]
            keys[rows_B1, :, slots_BT] = keys_BTKD
            values[rows_B1, :, slots_BT] = values_BTKD
        return keys[:, :, :used], values[:, :, :used]
