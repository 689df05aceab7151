"""The model: nanochat's architecture of October 2025, as transformers' NanoChatForCausalLM runs it.

Shape letters used in this file: B rows in a batch, T tokens in a row, S slots of a cache, H heads,
K heads of keys and values, D width of a head, C width of the model, V tokens in the vocabulary,
N supervised positions.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from imprint import fused
from imprint.errors import ConfigError

SOFTCAP = 15.0
"""Logits stay within plus and minus this."""
ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model; ``ModelConfig(**config.plain())`` is the same config.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    depth: int
    """Layers."""
    vocabulary: int
    """V, in tokens, special ones included."""
    context: int
    """Longest row in tokens."""
    head_width: int = 64
    """D."""
    n_kv_head: int | None = None
    """K; None for as many as there are heads."""

    def __post_init__(self) -> None:
        if self.width % self.head_width or self.head_width % 2:
            raise ConfigError(
                f"model.head_width: {self.head_width} does not divide the width {self.width} "
                "(64 x depth) into even heads. 64 always does."
            )
        if self.n_head % self.n_keys:
            raise ConfigError(
                f"model.n_kv_head: {self.n_keys} does not divide the {self.n_head} heads evenly"
            )

    @property
    def width(self) -> int:
        """C."""
        return 64 * self.depth

    @property
    def n_head(self) -> int:
        """H."""
        return self.width // self.head_width

    @property
    def n_keys(self) -> int:
        """K: heads of keys and values."""
        return self.n_kv_head or self.n_head

    def plain(self) -> dict[str, Any]:
        """Return the config as plain types, for a checkpoint."""
        return asdict(self)


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


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        keys = config.n_keys * config.head_width
        self.c_q = nn.Linear(config.width, config.width, bias=False)
        self.c_k = nn.Linear(config.width, keys, bias=False)
        self.c_v = nn.Linear(config.width, keys, bias=False)
        self.c_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Mix what the tokens of a row know.

        Args:
            x_BTC: The stream, normalised.
            rope: Cosine and sine, for ``fused.rotate``.
            mask: Added to the scores; None for a causal one.
            cache: What the rows have seen before.
        """
        config, (rows, length, width) = self.config, x_BTC.shape
        weight = torch.cat([self.c_q.weight, self.c_k.weight, self.c_v.weight]).to(x_BTC.dtype)
        heads = functional.linear(x_BTC, weight).view(rows, length, -1, config.head_width)
        if mask is not None and cache is None:
            mixed_BTC = fused.self_attend(heads, *rope, mask)
            return functional.linear(mixed_BTC, self.c_proj.weight.to(x_BTC.dtype))
        turned, values_BTKD = heads[:, :, : -config.n_keys], heads[:, :, -config.n_keys :]
        turned = fused.rms_norm(fused.rotate(turned, *rope))
        queries_BTHD, keys_BTKD = turned[:, :, : config.n_head], turned[:, :, config.n_head :]
        if cache is None:
            keys, values = keys_BTKD.transpose(1, 2), values_BTKD.transpose(1, 2)
        else:
            used = cache.room(length)
            keys, values = cache.put(self.layer, keys_BTKD, values_BTKD, used)
        mixed = fused.attend(queries_BTHD.transpose(1, 2), keys, values, mask)
        out = mixed.transpose(1, 2).reshape(rows, length, width)
        return functional.linear(out, self.c_proj.weight.to(out.dtype))


class MLP(nn.Module):
    """Two matrices with a squared ReLU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.width, 4 * config.width, bias=False)
        self.c_proj = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Let each token think by itself."""
        inner = functional.linear(x_BTC, self.c_fc.weight.to(x_BTC.dtype))
        return functional.linear(fused.relu_squared(inner), self.c_proj.weight.to(x_BTC.dtype))


class Block(nn.Module):
    """Attention, then MLP, each added to the stream that runs through the model."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Return the stream after this layer."""
        x_BTC = x_BTC + self.attn(fused.rms_norm(x_BTC), rope, mask, cache)
        return x_BTC + self.mlp(fused.rms_norm(x_BTC))


class Model(nn.Module):
    """A decoder-only transformer; parameter names are nanochat's."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig, *, seed: int | None = 0) -> None:
        """Make a model of ``config`` whose first weights depend on ``seed``; None leaves them unset."""
        super().__init__()
        self.config = config
        with torch.device("meta"):  # no memory yet, no random numbers drawn
            self.transformer = nn.ModuleDict(
                {
                    "wte": nn.Embedding(config.vocabulary, config.width),
                    "h": nn.ModuleList(Block(config, layer) for layer in range(config.depth)),
                }
            )
            self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.to_empty(device="cpu")
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
    def n_parameters(self) -> int:
        """Count of all weights."""
        return sum(weight.numel() for weight in self.parameters())

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token of a full row, forward and backward."""
        lookup = self.config.vocabulary * self.config.width
        return 6 * (self.n_parameters - lookup) + 12 * (
            self.config.depth * self.config.width * self.config.context
        )

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
        self, ids_BT: Tensor, *, cache: Cache | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the normalised stream after the last layer, (B, T, C), in ``dtype``."""
        length = ids_BT.shape[1]
        if length > self.config.context:
            raise ValueError(f"{length} tokens are beyond the context {self.config.context}")
        embedded = functional.embedding(ids_BT, self.embedding)
        x_BTC = fused.rms_norm(embedded.to(dtype or embedded.dtype))
        mask: Tensor | None = None
        if cache is None and x_BTC.device.type == "cpu" and self.config.n_kv_head is None:
            mask = fused.bias(torch.ones(length, length, dtype=torch.bool).tril_(), x_BTC.dtype)
            rope = (self.cos[:length].to(x_BTC.dtype), self.sin[:length].to(x_BTC.dtype))
            return self._layers(x_BTC, rope, mask, None)
        if cache is None:
            cos, sin = self.cos[:length], self.sin[:length]
        else:
            used = cache.room(length)
            steps = torch.arange(length, device=ids_BT.device)
            positions_BT = cache.lengths_B[:, None] + steps
            inside_BT = positions_BT.clamp(max=self.config.context - 1)
            cos, sin = self.cos[inside_BT], self.sin[inside_BT]
            slots = torch.arange(used, device=ids_BT.device)
            mask = fused.bias(slots <= positions_BT[:, None, :, None], x_BTC.dtype)
        rope = (cos.unsqueeze(-2).to(x_BTC.dtype), sin.unsqueeze(-2).to(x_BTC.dtype))
        return self._layers(x_BTC, rope, mask, cache)

    def _layers(
        self, x_BTC: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        for block in self.layers:
            x_BTC = block(x_BTC, rope, mask, cache)
        return fused.rms_norm(x_BTC)

    def forward(
        self,
        ids_BT: Tensor,
        *,
        cache: Cache | None = None,
        counts: Tensor | None = None,
        last: bool = False,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return the logits of the next token, as float32.

        Args:
            ids_BT: Token ids, int64, padded on the right with any id.
            cache: What the rows have seen before; the new tokens are added to it. None for rows
                that start here.
            counts: Real tokens of each row, int64 (B); None if all T are.
            last: Give only the logits behind each row's last real token, (B, V).
            dtype: Number type to calculate in; None for that of the parameters.

        Returns:
            logits_BTV, or logits_BV with ``last``.

        Raises:
            ValueError: The rows do not fit into the cache or the context.
        """
        x = self.stream(ids_BT, cache=cache, dtype=dtype)
        if cache is not None:
            cache.longest = cache.room(ids_BT.shape[1])
            cache.lengths_B = cache.lengths_B + (ids_BT.shape[1] if counts is None else counts)
        if last:
            rows = torch.arange(len(x), device=x.device)
            x = x[:, -1] if counts is None else x[rows, counts - 1]
        logits = functional.linear(x, self.lm_head.weight.to(x.dtype)).float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def loss(
        self, ids_BT: Tensor, where_N: Tensor, labels_N: Tensor, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the cross-entropy in nats, summed over the supervised positions alone.

        Args:
            ids_BT: Token ids, int64, padded on the right with any id.
            where_N: Supervised positions, as indices into the B x T tokens, int64.
            labels_N: The token that follows each of them, int64.
            dtype: Number type to calculate in; None for that of the parameters.
        """
        x_NC = self.stream(ids_BT, dtype=dtype).flatten(0, 1).index_select(0, where_N)
        return fused.softcapped_cross_entropy(x_NC, self.lm_head.weight, labels_N, SOFTCAP)
