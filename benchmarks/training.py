"""Our training step against plain ones (see plain.py): python -m benchmarks.training.

Two models: that of config/scales/tiny.yaml in kind, on conversations of different lengths, against
the plainest loop; and a larger one, d4, on rows of documents, against compiled loops in float32
and, where the processor multiplies it, in bfloat16: emulated, a step takes half a minute. All loops
have the same model, batches and machine, and take turns, because the speed of a shared machine
drifts: a ratio is the median of those of the turns. A token is one that is not padding. Of d4 the
model's own matrix products tell what there is to win: `ceiling_ratio` is how much faster the
fastest of them is in our number type than in float32, `d4_of_ceiling` the share we use.
"""

# ruff: noqa: E402
import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from imprint.script import sharing

sharing()  # before torch is loaded

import numpy as np
import torch
from benchmarks import plain
from benchmarks.gpu import ceiling
from rich.console import Console
from rich.table import Table

from imprint import sources
from imprint.dataset.batch import Batch
from imprint.dataset.chats import Chats
from imprint.dataset.mixture import Share
from imprint.dataset.store import Store
from imprint.model import Model, ModelConfig
from imprint.scale import Training
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.loop import number_type, prepare
from imprint.training.optim import Optimizers

Step = Callable[[Batch], None]
STEPS = 2
"""Steps in a turn."""
LEAST = 5
"""Turns of each loop."""


def our_step(config: ModelConfig) -> Step:
    """Return a step of imprint's loop."""
    ranks = Ranks(0, 1, torch.device("cpu"))
    model, dtype = Model(config, seed=1), number_type(ranks.device)
    settings = Training(embedding_lr=0.02, head_lr=0.004)
    optimizers = Optimizers(model, settings, ranks=ranks, dtype=dtype)
    gradients = Gradients(model, dtype=dtype)

    def step(batch: Batch) -> None:
        prepare(ranks)
        gradients.backward(batch)
        optimizers.step(step=0, steps=2, each=gradients.each)

    return step


def conversations() -> tuple[ModelConfig, Iterator[Batch]]:
    """Return a tiny model and batches of conversations, one a row."""
    source = sources.find("embedded")
    words = Tokenizer.train(source.documents(characters=500_000, seed=1), vocabulary=2048)
    config = ModelConfig(depth=2, vocabulary=words.vocabulary, context=256)
    told = Store.of(words.render_batch(source.conversations(count=6000, seed=1)))
    data = Chats(
        [Share(told, np.arange(len(told)))],
        tokenizer=words,
        context=config.context,
        batch_tokens=4096,
        seed=1,
    )
    return config, map(data.batch, itertools.cycle(range(data.steps)))


def documents() -> tuple[ModelConfig, Iterator[Batch]]:
    """Return the d4 model and batches of 16 full rows; which tokens they are costs no time."""
    config = ModelConfig(depth=4, vocabulary=4096, context=256)
    generator = torch.Generator().manual_seed(1)

    def batches() -> Iterator[Batch]:
        while True:
            ids = torch.randint(config.vocabulary, (16, config.context + 1), generator=generator)
            labels = ids[:, 1:].flatten()
            yield Batch(ids[:, :-1].contiguous(), None, labels, len(labels), len(labels))

    return config, batches()


def compared(
    loops: dict[str, Step], batches: Iterator[Batch], *, seconds: float
) -> dict[str, list[float]]:
    """Return the tokens a second of each of ``loops``, turn by turn; print their medians."""
    speeds: dict[str, list[float]] = {name: [] for name in loops}

    def turn() -> dict[str, float]:
        given = [next(batches) for _ in range(STEPS)]
        tokens, speed = sum(batch.tokens for batch in given), {}
        for name, step in loops.items():
            torch.set_float32_matmul_precision("highest")
            started = time.perf_counter()
            for batch in given:
                step(batch)
            speed[name] = tokens / (time.perf_counter() - started)
        return speed

    turn()  # warms up, and compiles
    end = time.monotonic() + seconds
    while len(next(iter(speeds.values()))) < LEAST or time.monotonic() < end:
        for name, speed in turn().items():
            speeds[name].append(speed)
    table = Table("loop", "tokens/s", "slowest turn", "fastest turn", "turns")
    for name, each in speeds.items():
        figures = (statistics.median(each), min(each), max(each), len(each))
        table.add_row(name, *(f"{figure:,.0f}" for figure in figures))
    Console().print(table)
    return speeds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return how many times as fast as ``theirs`` ours are, in the median of the turns."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def main() -> None:
    """Measure, print tables, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40, help="for each of the two models")
    seconds = parser.parse_args().seconds
    config, batches = conversations()
    loops = {"plain": plain.eager(config), "imprint": our_step(config)}
    their_tiny, our_tiny = compared(loops, batches, seconds=seconds).values()
    config, batches = documents()
    cpu = torch.device("cpu")
    best = number_type(cpu)
    loops = {
        f"d4, compiled, {str(dtype).removeprefix('torch.')}": plain.compiled(
            config, dtype=dtype, muon=best
        )
        for dtype in dict.fromkeys([torch.float32, best])
    }
    loops["d4, imprint"] = our_step(config)
    full, *half, ours = compared(loops, batches, seconds=seconds).values()
    torch.set_float32_matmul_precision("highest")
    wide, narrow = (ceiling(config, cpu, dtype) for dtype in (torch.float32, best))
    used = statistics.median(ours) * config.flops_per_token
    figures = {
        "tokens_per_s": round(statistics.median(our_tiny)),
        "plain_tokens_per_s": round(statistics.median(their_tiny)),
        "ratio": ratio(our_tiny, their_tiny),
        "d4_tokens_per_s": round(statistics.median(ours)),
        "d4_ratio": ratio(ours, full),
        "d4_ratio_bf16": ratio(ours, half[0]) if half else None,
        "d4_of_ceiling": round(used / narrow, 2),
        "ceiling_ratio": round(narrow / wide, 2),
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
