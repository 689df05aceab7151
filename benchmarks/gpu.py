"""Training on GPUs against what their arithmetic allows: python -m benchmarks.gpu.

On several GPUs: torchrun --nproc-per-node=8 -m benchmarks.gpu. Measured are the fastest of the
model's own matrix products, how much of that speed (and of the data sheet's) the training loop
gets to use for its model, the loader alone, and a changed identity from checkpoint to checkpoint:
with the settings of config/scales/d20.yaml, on random tokens, whose meaning costs no time.
"""

# ruff: noqa: E402
import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from imprint.script import sharing

sharing()  # before torch is loaded

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from imprint import checkpoint, dial, hardware
from imprint.dataset.batch import Data
from imprint.dataset.documents import Documents
from imprint.dataset.loader import Loader
from imprint.dataset.mixture import Share
from imprint.dataset.order import randomness
from imprint.dataset.packed import Packed
from imprint.dataset.store import Store
from imprint.model import Model, ModelConfig
from imprint.scale import Training
from imprint.settings import Settings, Watch, resolve
from imprint.training.distributed import Ranks, joined
from imprint.training.loop import Outcome, number_type, prepare, train
from imprint.training.states import States

ROOT = Path(__file__).parents[1]
SPEECH: Any = SimpleNamespace(bos=0, assistant_end=4)
"""All that packing asks of a tokenizer."""
WEB, CHAT = 1000, 100
"""Tokens of a document and of a conversation, on average."""


def store(tokens: int, *, length: int, vocabulary: int, spoken: bool) -> Store:
    """Return at least ``tokens`` random tokens, in texts of about ``length`` of them."""
    dice = randomness("benchmark", tokens)
    lengths = 16 + dice.exponential(length - 16, size=2 * tokens // length + 8).astype(np.int64)
    ends = np.cumsum(lengths)
    ends = ends[: int(np.searchsorted(ends, tokens)) + 1]
    ids = dice.randint(5, vocabulary, size=ends[-1], dtype=np.uint16)
    ids[np.concatenate([[0], ends[:-1]])] = SPEECH.bos
    said = (dice.random_sample(len(ids)) < 0.5).astype(np.uint8)
    said[ends - 1] = 1  # of a conversation without an answer there is nothing to learn
    return Store([ids], [ends], [said] if spoken else [], text_bytes=4 * len(ids))


def ceiling(config: ModelConfig, device: torch.device, wide: torch.dtype) -> float:
    """Return the FLOP/s of the fastest of the model's matrix products in the number type given."""
    rows, width, best = 16 * config.context, config.width, 0.0
    for inner, outer in ((width, 3 * width), (width, 4 * width), (4 * width, width)):
        a = torch.randn(rows, inner, device=device).to(wide)
        b = torch.randn(inner, outer, device=device).to(wide)
        rounds = 200 if device.type == "cuda" else 5
        for _ in range(2):  # once to warm up
            synchronise(device)
            started = time.perf_counter()
            for _ in range(rounds):
                torch.mm(a, b)
            synchronise(device)
        seconds = (time.perf_counter() - started) / rounds
        best = max(best, 2 * rows * inner * outer / seconds)
    return best


def synchronise(device: torch.device) -> None:
    """Wait until ``device`` has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trained(
    model: Model, data: Data, settings: Training, ranks: Ranks, folder: Path, label: str
) -> Outcome:
    """Train ``model`` on ``data`` with imprint's own loop."""
    return train(
        model,
        data,
        settings=settings,
        ranks=ranks,
        label=label,
        states=States(folder / "state" / label),
        metrics=folder / "metrics" / f"{label}.jsonl",
        watch=Watch(),
    )


def refresh(
    config: ModelConfig, settings: Settings, ranks: Ranks, folder: Path, *, tokens: int
) -> dict[str, float]:
    """Teach a checkpoint a changed identity; return the seconds that took, and their parts."""
    about: dict[str, Any] = {"tokenizer": "", "settings": {}, "seed": 1, "step": 0, "stage": "sft"}
    if ranks.first:
        checkpoint.save(folder / "mid.pt", Model(config, seed=1), **about)
    ranks.wait()
    told = store(tokens, length=CHAT, vocabulary=config.vocabulary, spoken=True)
    marks = [time.perf_counter()]

    def mark() -> None:
        synchronise(ranks.device)
        ranks.wait()
        marks.append(time.perf_counter())

    model = checkpoint.load(folder / "mid.pt").model().to(ranks.device)
    mark()
    assert settings.sft.batch_tokens  # the dial has filled it in
    data = Packed(
        [Share(told, np.arange(len(told)))],
        tokenizer=SPEECH,
        context=config.context,
        batch_tokens=settings.sft.batch_tokens,
        seed=1,
    )
    trained(model, data, settings.sft, ranks, folder, "sft")
    mark()
    if ranks.first:
        checkpoint.save(folder / "sft.pt", model, **about)
    mark()
    names = ("refresh_load_s", "refresh_train_s", "refresh_save_s")
    spans = [after - before for before, after in itertools.pairwise(marks)]
    return {"refresh_s": sum(spans), **dict(zip(names, spans, strict=True))}


def pretraining(
    config: ModelConfig, settings: Settings, ranks: Ranks, folder: Path, *, steps: int
) -> dict[str, Any]:
    """Pretrain a new model for some steps; return how fast that went."""
    assert settings.base.batch_tokens  # the dial has filled it in
    tokens = steps * settings.base.batch_tokens
    web = store(tokens, length=WEB, vocabulary=config.vocabulary, spoken=False)

    def documents() -> Documents:
        return Documents(
            web,
            context=config.context,
            batch_tokens=settings.base.batch_tokens,
            tokens=tokens,
            seed=1,
        )

    with Loader(documents(), rank=ranks.rank, world=ranks.world, device=ranks.device) as batches:
        started = time.perf_counter()
        loaded = sum(batch.tokens for batch in batches)
        loader = loaded / (time.perf_counter() - started)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)
    model = Model(config, seed=1).to(ranks.device)
    loss, at_once = model.loss, []

    def counted(ids_BT: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        at_once.append(ids_BT.numel())  # what the loop makes of the memory there is
        return loss(ids_BT, *rest, **named)

    model.loss = counted
    outcome = trained(model, documents(), settings.base, ranks, folder, "base")
    settled = outcome.lines[len(outcome.lines) // 3 :]  # compiled, and all memory in place

    def median(name: str) -> float:
        return statistics.median(line[name] for line in settled)

    return {
        "tokens_per_s": round(median("tokens_per_s")),
        "data_wait": median("data_wait"),
        "memory_mb": settled[-1]["memory_mb"],
        "loader_tokens_per_s": round(loader),
        "batch_tokens": settings.base.batch_tokens,
        "tokens_at_once": statistics.mode(at_once),
    }


def measured(given: argparse.Namespace, ranks: Ranks, folder: Path) -> dict[str, Any]:
    """Return all figures."""
    shape = {"depth": given.depth, "vocabulary": given.vocabulary, "context": given.context}
    settings = resolve({"identity": "none", "scale": "d20", "model": shape}, root=ROOT)
    config = dial.shape(settings.model)
    prepare(ranks)
    possible = ceiling(config, ranks.device, number_type(ranks.device))
    sheet = hardware.peak_of(ranks.device)
    refreshed = refresh(config, settings, ranks, folder, tokens=given.refresh_tokens)
    figures = pretraining(config, settings, ranks, folder, steps=given.steps)
    used = figures["tokens_per_s"] * config.flops_per_token / ranks.world
    return {
        "device": torch.cuda.get_device_name() if ranks.device.type == "cuda" else "cpu",
        "processes": ranks.world,
        **shape,
        "parameters": config.n_parameters,
        "ceiling_tflops": round(possible / 1e12, 3),
        "of_ceiling": round(used / possible, 3),
        "of_data_sheet": round(used / sheet, 3) if sheet else None,
        **figures,
        **{name: round(seconds, 2) for name, seconds in refreshed.items()},
    }


def main() -> None:
    """Measure, print a table, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--vocabulary", type=int, default=65_536)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=12, help="of pretraining")
    parser.add_argument("--refresh-tokens", type=int, default=1_000_000)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    if given.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        sys.stdout.write("No CUDA device here: nothing to measure. Try --device cpu --depth 2.\n")
        return
    run = os.environ.get("TORCHELASTIC_RUN_ID", os.getpid())
    folder = Path(tempfile.gettempdir()) / f"imprint-benchmark-{run}"  # the same for all processes
    try:
        with joined() as ranks:
            figures = measured(given, ranks, folder)
            if ranks.first:
                table = Table("what", "figure")
                for name, figure in figures.items():
                    table.add_row(name, f"{figure:,}" if isinstance(figure, int) else str(figure))
                Console().print(table)
                sys.stdout.write(json.dumps(figures) + "\n")
    finally:
        if int(os.environ.get("RANK", "0")) == 0:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
