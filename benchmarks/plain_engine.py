"""A generation loop to measure ours against: what nanochat's engine does, written plainly.

The whole module runs for every step, with separate products for queries, keys and values. A prompt
is read once and its keys and values are copied for each sample. Rows are bookkept in Python, token
by token, with the state that nanochat keeps for its calculator. Shape letters: see model.py.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from benchmarks.plain import norm
from torch import Tensor, nn
from torch.nn import functional

from imprint.model import ROPE_BASE, SOFTCAP, ModelConfig

GROWTH = 1024
"""Slots by which a cache grows that has become too short."""


class GrowingCache:
    """Keys and values of all layers in one tensor; all rows are of one length."""

    def __init__(self, config: ModelConfig, *, rows: int, length: int) -> None:
        self.shape = [config.depth, 2, rows, config.n_keys, length, config.head_width]
        self.both: Tensor | None = None
        self.position = 0

    def fill_from(self, other: "GrowingCache") -> None:
        """Give every row what the one row of ``other`` holds."""
        assert other.both is not None
        self.both = torch.zeros(self.shape)
        self.both[:, :, :, :, : other.position] = other.both[:, :, :, :, : other.position]
        self.position = other.position

    def insert(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append to a layer; return all it holds."""
        if self.both is None:
            self.both = torch.zeros(self.shape)
        start, end = self.position, self.position + keys.shape[2]
        if end > self.both.shape[4]:
            more = list(self.both.shape)
            more[4] = (end + GROWTH + GROWTH - 1) // GROWTH * GROWTH - self.both.shape[4]
            self.both = torch.cat([self.both, torch.zeros(more)], dim=4)
        self.both[layer, 0, :, :, start:end] = keys
        self.both[layer, 1, :, :, start:end] = values
        if layer == self.shape[0] - 1:
            self.position = end
        return self.both[layer, 0, :, :, :end], self.both[layer, 1, :, :, :end]


class PlainLayer(nn.Module):
    """Attention, then MLP."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.width = layer, config.head_width
        keys = config.n_keys * config.head_width
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, keys, bias=False)
        self.v = nn.Linear(config.width, keys, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: GrowingCache) -> Tensor:
        """Return the stream after this layer."""
        rows, length, _ = x.shape
        y = norm(x)
        q, k, v = (f(y).view(rows, length, -1, self.width) for f in (self.q, self.k, self.v))
        q, k = norm(_turned(q, cos, sin)), norm(_turned(k, cos, sin))
        keys, values = cache.insert(self.layer, k.transpose(1, 2), v.transpose(1, 2))
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2),
            keys,
            values,
            is_causal=length == keys.shape[2],
            enable_gqa=q.shape[2] != k.shape[2],
        )
        x = x + self.out(mixed.transpose(1, 2).contiguous().view(rows, length, -1))
        return x + self.down(functional.relu(self.up(norm(x))).square())


class PlainGenerator(nn.Module):
    """The model with a cache and a loop around it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(PlainLayer(config, layer) for layer in range(config.depth))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        half = torch.arange(0, config.head_width, 2) / config.head_width
        angles = torch.outer(torch.arange(10 * config.context), 1 / ROPE_BASE**half)
        self.register_buffer("cos", angles.cos()[None, :, None])
        self.register_buffer("sin", angles.sin()[None, :, None])

    @classmethod
    def of(cls, config: ModelConfig, weights: Mapping[str, Tensor]) -> "PlainGenerator":
        """Return a generator with the weights of a model of ours."""
        parts = {"c_q": "q", "c_k": "k", "c_v": "v", "attn.c_proj": "out"}
        parts |= {"c_fc": "up", "mlp.c_proj": "down"}
        renamed = {"embedding.weight": weights["transformer.wte.weight"]}
        renamed["head.weight"] = weights["lm_head.weight"]
        for name, weight in weights.items():
            for ours, theirs in parts.items():
                if f"{ours}.weight" in name:
                    renamed[f"layers.{name.split('.')[2]}.{theirs}.weight"] = weight
        made = cls(config)
        made.load_state_dict(made.state_dict() | renamed)
        return made.eval()

    def forward(self, ids: Tensor, cache: GrowingCache) -> Tensor:
        """Return the logits at every position."""
        here = slice(cache.position, cache.position + ids.shape[1])
        x = norm(self.embedding(ids))
        for layer in self.layers:
            x = layer(x, self.cos[:, here], self.sin[:, here], cache)
        return SOFTCAP * torch.tanh(self.head(norm(x)) / SOFTCAP)

    @torch.inference_mode()
    def generate(self, prompt: list[int], *, samples: int, tokens: int) -> list[list[int]]:
        """Return the greedy continuations of ``prompt``, ``tokens`` long."""
        first = GrowingCache(self.config, rows=1, length=len(prompt))
        logits = self(torch.tensor([prompt]), first)[:, -1]
        sampled = [int(logits.argmax(-1))] * samples
        cache = GrowingCache(self.config, rows=samples, length=len(prompt) + tokens)
        cache.fill_from(first)
        rows = [_Row(prompt.copy()) for _ in range(samples)]
        column: list[int] = []
        for _ in range(tokens):
            if column:
                logits = self(torch.tensor(column)[:, None], cache)[:, -1]
                sampled = torch.argmax(logits, dim=-1, keepdim=True)[:, 0].tolist()
            column, masks = [], []
            for row, token in zip(rows, sampled, strict=True):
                masks.append(0 if row.forced else 1)
                column.append(row.take(token))
            if all(row.completed for row in rows):
                break
        return [row.tokens[len(prompt) :] for row in rows]


@dataclass
class _Row:
    """What nanochat keeps of each row; no token here starts its calculator or ends an answer."""

    tokens: list[int]
    forced: deque[int] = field(default_factory=deque)
    calculating: bool = False
    expression: list[int] = field(default_factory=list)
    completed: bool = False

    def take(self, sampled: int) -> int:
        token = self.forced.popleft() if self.forced else sampled
        self.tokens.append(token)
        if token in (-1, -2):
            self.completed = True
        if token == -3:
            self.calculating, self.expression = True, []
        elif token == -4 and self.calculating:
            self.calculating = False
        elif self.calculating:
            self.expression.append(token)
        return token


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[3] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=3).to(x.dtype)
