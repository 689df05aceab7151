"""The model: nanochat's architecture of October 2025, as transformers' NanoChatForCausalLM runs it.

Shape letters used in this file: B rows in a batch, T tokens in a row, S keys that a query may see,
H heads, K heads of keys and values, D width of a head, C width of the model, V tokens in the
vocabulary, N supervised positions.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from imprint import attention, cross_entropy, fused, layers
from imprint.layers import Block, Matrix
from imprint.shape import ModelConfig

__all__ = ["Model", "ModelConfig"]

SOFTCAP = 15.0
"""Logits stay within plus and minus this."""
ROPE_BASE = 10_000.0


class Compiled(NamedTuple):
    """Compiled forms of what takes the time on a GPU."""

    through: Callable[..., Tensor]
    """Of ``layers.through``."""
    slopes: cross_entropy.Slopes
    """Of ``cross_entropy.logit_slopes``."""


class Model(nn.Module):
    """A decoder-only transformer; parameter names are nanochat's."""

    cos: Tensor
    sin: Tensor
    compiled: Compiled | None = None
    """Used where gradients are wanted."""

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        """Make a model whose first weights depend on ``seed`` alone; None leaves them unset."""
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": Matrix(config.vocabulary, config.width),
                "h": nn.ModuleList(Block(config) for _ in range(config.depth)),
            }
        )
        self.lm_head = Matrix(config.vocabulary, config.width)
        if seed is not None:
            self._initialise(seed)
        half = torch.arange(0, config.head_width, 2, dtype=torch.float) / config.head_width
        angles = torch.arange(config.context)[:, None] * (1.0 / ROPE_BASE**half)
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat([cos, cos], dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat([sin, -sin], dim=-1), persistent=False)

    @torch.no_grad()
    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if name.endswith("wte.weight"):
                weight.normal_(generator=generator)
            elif name.endswith("c_proj.weight") or name == "lm_head.weight":
                weight.zero_()  # every layer starts as the identity, every token as likely as any
            else:
                rows, columns = weight.shape
                spread = min(1.0, math.sqrt(rows / columns)) / math.sqrt(columns)
                weight.normal_(std=spread, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.lm_head.weight.device

    @property
    def embedding(self) -> Tensor:
        """Weights of the embedding, (V, C)."""
        return self.get_parameter("transformer.wte.weight")

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks, in order."""
        layers = self.transformer["h"]
        assert isinstance(layers, nn.ModuleList)
        return layers

    def matrices(self) -> Iterator[nn.Parameter]:
        """Yield the weights of the layers, in order: all but embedding and head."""
        yield from self.layers.parameters()

    def stream(
        self,
        ids_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
        where_N: Tensor | None = None,
    ) -> Tensor:
        """Return the normalised stream after the last layer, in ``dtype``.

        It is (B, T, C), or (N, C) if only the positions ``where_N`` are asked for: then the last
        layer leaves out what nobody will look at. Compiled, it does not: N is another in every
        batch, and to compile for each takes longer than what is left out.
        """
        length = ids_BT.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens are beyond the context {self.config.context}")
        embedded = functional.embedding(ids_BT, self.embedding)
        x_BTC = fused.rms_norm(embedded.to(dtype or embedded.dtype))
        run: Callable[..., Tensor] = layers.through
        cos, sin = self.cos[:length], self.sin[:length]
        compiled = self.compiled if torch.is_grad_enabled() else None
        if compiled is not None:
            run = compiled.through
        mask = attention.itself(x_BTC, documents_BT, blocks=compiled is not None)
        rope = (cos.to(x_BTC.dtype), sin.to(x_BTC.dtype))
        last = self.config.depth - 1 if run is layers.through else None
        for layer, block in enumerate(self.layers):
            x_BTC = run(block, x_BTC, rope, mask, where_N if layer == last else None)
        if last is None and where_N is not None:
            x_BTC = x_BTC.flatten(0, 1).index_select(0, where_N)
        return fused.rms_norm(x_BTC)

    def forward(self, ids_BT: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Return the logits of the next token, logits_BTV, as float32.

        Args:
            ids_BT: Token ids, int64, padded on the right with any id.
            dtype: Number type to calculate in; None for that of the parameters.

        Raises:
            ValueError: The rows do not fit into the context.
        """
        logits = self.lm_head(self.stream(ids_BT, dtype=dtype)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def loss(
        self,
        ids_BT: Tensor,
        where_N: Tensor | None,
        labels_N: Tensor,
        *,
        documents_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return the cross-entropy in nats, summed over the supervised positions alone.

        Args:
            ids_BT: Token ids, int64, padded on the right with any id.
            where_N: Supervised positions, as indices into the B x T tokens, int64; None for all.
                May go on behind the last label: what stands there is not looked at.
            labels_N: The token that follows each of them, int64.
            documents_BT: Which document of its row each token belongs to, int32; they do not see
                each other. None where a row is one.
            dtype: Number type to calculate in; None for that of the parameters.
        """
        x = self.stream(ids_BT, documents_BT=documents_BT, dtype=dtype, where_N=where_N)
        return cross_entropy.softcapped_cross_entropy(
            x.view(-1, self.config.width),
            self.lm_head.weight,
            labels_N,
            SOFTCAP,
            self.compiled.slopes if self.compiled else None,
        )
