"""Training loops to measure ours against: the same model, written as a textbook would.

`eager` is the plainest: float32, torch's AdamW. `compiled` is what nanochat does at its best: the
model under torch.compile, in float32 or under autocast to bfloat16, Muon for one matrix after the
other, in bfloat16 where the processor has it, fused AdamW for embedding and head. Both work out
logits at every position.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from imprint.dataset.batch import Batch
from imprint.model import ROPE_BASE, SOFTCAP, ModelConfig
from imprint.training.optim import BETAS, EPSILON, ITERATIONS, NEWTON_SCHULZ

IGNORED = -100
"""Label of a position that is not trained."""


def norm(x: Tensor) -> Tensor:
    """Scale the last axis to a root mean square of one."""
    return functional.rms_norm(x, (x.shape[-1],), eps=1e-6)


class PlainBlock(nn.Module):
    """A layer as a textbook writes it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, width = config.n_head, config.width
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attention, then MLP."""
        rows, length, width = x.shape
        y = norm(x)
        q, k, v = (f(y).view(rows, length, self.heads, -1) for f in (self.q, self.k, self.v))

        def turned(z: Tensor) -> Tensor:
            a, b = z.chunk(2, dim=-1)
            return norm(torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1))

        mixed = functional.scaled_dot_product_attention(
            turned(q).transpose(1, 2), turned(k).transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(functional.relu(self.up(norm(x))).square())


class PlainModel(nn.Module):
    """The same architecture without any of our work on speed."""

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        half = torch.arange(0, config.head_width, 2) / config.head_width
        angles = torch.arange(config.context)[:, None] / ROPE_BASE**half
        self.register_buffer("cos", angles.cos()[:, None].to(dtype))
        self.register_buffer("sin", angles.sin()[:, None].to(dtype))

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over the labels that are trained."""
        x = norm(self.embedding(ids).to(self.dtype))
        for block in self.blocks:
            x = block(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        logits = SOFTCAP * torch.tanh(self.head(norm(x)).float() / SOFTCAP)
        return functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED
        )


def eager(config: ModelConfig) -> Callable[[Batch], None]:
    """Return a step of the plainest loop."""
    model = PlainModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        model(batch.ids_BT, labels(batch)).backward()
        optimizer.step()

    return step


def compiled(
    config: ModelConfig, *, dtype: torch.dtype, muon: torch.dtype
) -> Callable[[Batch], None]:
    """Return a step of nanochat's kind, whose model calculates in ``dtype``, Muon in ``muon``."""
    model = PlainModel(config, dtype)
    loss = torch.compile(model, dynamic=False)
    orthogonal = torch.compile(_orthogonal, dynamic=False)
    matrices = list(model.blocks.parameters())
    momenta = [torch.zeros_like(weight) for weight in matrices]
    ends = [model.embedding.weight, model.head.weight]
    optimizer = torch.optim.AdamW(
        ends, lr=0.004, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
    )

    def step(batch: Batch) -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            nats = loss(batch.ids_BT, labels(batch))
        nats.backward()
        optimizer.step()
        with torch.no_grad():
            for weight, momentum in zip(matrices, momenta, strict=True):
                assert weight.grad is not None
                momentum.lerp_(weight.grad, 0.05)
                move = orthogonal(weight.grad.lerp_(momentum, 0.95), muon)
                rows, columns = weight.shape
                weight.add_(move, alpha=-0.02 * math.sqrt(max(1.0, rows / columns)))
        model.zero_grad(set_to_none=True)

    return step


def _orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(dtype)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


def labels(batch: Batch) -> Tensor:
    """Return the label of every position of ``batch``, (B, T)."""
    if batch.where_N is None:
        return batch.labels_N.view_as(batch.ids_BT)
    spread = torch.full_like(batch.ids_BT, IGNORED).flatten()
    spread[batch.where_N[: len(batch.labels_N)]] = batch.labels_N
    return spread.view_as(batch.ids_BT)
