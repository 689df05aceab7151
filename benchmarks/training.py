"""Our training step against the plainest one: python benchmarks/training.py.

The plain loop has the same model, batches and machine: float32, scaled_dot_product_attention,
logits at every position, torch's AdamW. Both take turns, because the speed of a shared machine
drifts; the median counts. A token is one that is not padding.
"""

# ruff: noqa: E402
import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

from imprint.script import sharing

sharing()  # before torch is loaded

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from imprint import sources
from imprint.dataset.batch import Batch
from imprint.dataset.chats import Chats
from imprint.model import ROPE_BASE, SOFTCAP, Model, ModelConfig
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.loop import number_type, prepare
from imprint.training.optim import AdamW, Muon


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

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.depth))
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        half = torch.arange(0, config.head_width, 2) / config.head_width
        angles = torch.arange(config.context)[:, None] / ROPE_BASE**half
        self.register_buffer("cos", angles.cos()[:, None])
        self.register_buffer("sin", angles.sin()[:, None])

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss over the labels that are not -100."""
        x = norm(self.embedding(ids))
        for block in self.blocks:
            x = block(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        logits = SOFTCAP * torch.tanh(self.head(norm(x)) / SOFTCAP)
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def plain_step(config: ModelConfig) -> Callable[[Batch], None]:
    """Return a step of the plain loop."""
    model = PlainModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step(batch: Batch) -> None:
        assert batch.where_N is not None
        labels = torch.full_like(batch.ids_BT, -100).flatten()
        labels[batch.where_N[: len(batch.labels_N)]] = batch.labels_N
        optimizer.zero_grad()
        model(batch.ids_BT, labels).backward()
        optimizer.step()

    return step


def our_step(config: ModelConfig) -> Callable[[Batch], None]:
    """Return a step of imprint's loop."""
    model, dtype = Model(config, seed=1), number_type(torch.device("cpu"))
    muon = Muon(model.matrices(), lr=0.02, weight_decay=0.0, dtype=dtype)
    adamw = AdamW([(model.embedding, 0.02), (model.lm_head.weight, 0.004)])

    gradients = Gradients(model, dtype=dtype)

    def step(batch: Batch) -> None:
        gradients.backward(batch)
        muon.step(1.0, each=gradients.each)
        adamw.step(1.0)

    return step


def main() -> None:
    """Measure, print a table, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each loop")
    parser.add_argument("--steps", type=int, default=6, help="steps in a turn")
    given = parser.parse_args()
    source = sources.find("embedded")
    words = Tokenizer.train(
        source.documents(characters=500_000, seed=1), vocabulary=given.vocabulary
    )
    config = ModelConfig(depth=given.depth, vocabulary=words.vocabulary, context=256)
    data = Chats(
        words.render_batch(source.conversations(count=6000, seed=1)),
        tokenizer=words,
        context=config.context,
        batch_tokens=given.batch_tokens,
        seed=1,
    )
    loops = {"plain": plain_step(config), "imprint": our_step(config)}
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(given.rounds + 1):
        batches = [
            data.batch((turn * given.steps + number) % data.steps) for number in range(given.steps)
        ]
        for name, step in loops.items():
            torch.set_float32_matmul_precision("highest")
            if name == "imprint":
                prepare(Ranks(0, 1, torch.device("cpu")))
            started = time.perf_counter()
            for batch in batches:
                step(batch)
            seconds = time.perf_counter() - started
            if turn:  # the first turn warms up
                speeds[name].append(sum(batch.tokens for batch in batches) / seconds)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    table = Table("loop", "tokens/s", "slowest turn", "fastest turn")
    for name, values in speeds.items():
        table.add_row(name, *(f"{x:,.0f}" for x in (medians[name], min(values), max(values))))
    Console().print(table)
    figures = {
        "tokens_per_s": round(medians["imprint"]),
        "plain_tokens_per_s": round(medians["plain"]),
        "ratio": round(medians["imprint"] / medians["plain"], 2),
        "threads": torch.get_num_threads(),
        "depth": given.depth,
        "vocabulary": words.vocabulary,
        "batch_tokens": given.batch_tokens,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
