"""The loader against training, which it must never keep waiting: python -m benchmarks.loader.

Tokens a second of the loader alone, for documents and for conversations one a row and packed, and
of a tiny model that trains on the conversations. They take turns, because the speed of a shared
machine drifts; the median counts. A token is one that is not padding.
"""

# ruff: noqa: E402
import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from imprint.script import sharing

sharing()  # before torch is loaded

import numpy as np
import torch
from benchmarks.training import our_step
from rich.console import Console
from rich.table import Table

from imprint import sources
from imprint.dataset import writer
from imprint.dataset.batch import Data
from imprint.dataset.chats import Chats
from imprint.dataset.documents import Documents
from imprint.dataset.loader import Loader
from imprint.dataset.mixture import Share
from imprint.dataset.packed import Packed
from imprint.dataset.store import Store
from imprint.model import ModelConfig
from imprint.tokenizer import Tokenizer

LONG = {"context": 2048, "batch_tokens": 65_536, "seed": 1}
SHORT = {"context": 256, "batch_tokens": 4096, "seed": 1}
STEPS = 8
"""Steps of training in a turn."""


def written(index: Path, words: Tokenizer, rows: list[writer.Row]) -> tuple[Store, float]:
    """Return a store of ``rows``, and the tokens a second at which it was written."""
    started = time.perf_counter()
    piece = writer.Piece("all", (("train", row) for row in rows), len(rows))
    writer.write(index, tokenizer=words, pieces=[piece])
    store = Store.open(index, "train", tokenizer=words.digest)
    return store, store.tokens / (time.perf_counter() - started)


def loaded(data: Data) -> float:
    """Return the tokens a second of the loader alone."""
    started = time.perf_counter()
    with Loader(data) as batches:
        tokens = sum(batch.tokens for batch in batches)
    return tokens / (time.perf_counter() - started)


def main() -> None:
    """Measure, print a table, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each kind")
    parser.add_argument("--characters", type=int, default=8_000_000, help="of documents")
    parser.add_argument("--conversations", type=int, default=20_000)
    given = parser.parse_args()
    source = sources.find("embedded")
    texts = list(source.documents(characters=given.characters, seed=1))
    words = Tokenizer.train(texts[: len(texts) // 16 + 1], vocabulary=2048)
    speeds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        corpus, text_speed = written(Path(folder) / "base.json", words, [*texts])
        conversations = source.conversations(count=given.conversations, seed=1)
        told, chat_speed = written(Path(folder) / "chat.json", words, [*conversations])
        shares = [Share(told, np.arange(len(told)))]
        chats = Chats(shares, tokenizer=words, **SHORT)
        kinds: dict[str, Data] = {
            "documents": Documents(corpus, tokens=None, **LONG),
            "chats": chats,
            "packed": Packed(shares, tokenizer=words, **LONG),
        }
        config = ModelConfig(depth=2, vocabulary=words.vocabulary, context=SHORT["context"])
        step, trained = (
            our_step(config),
            [chats.batch(number) for number in range(min(STEPS, chats.steps))],
        )
        for turn in range(given.rounds + 1):
            found = {kind: loaded(data) for kind, data in kinds.items()}
            started = time.perf_counter()
            for batch in trained:
                step(batch)
            seconds = time.perf_counter() - started
            found["training"] = sum(batch.tokens for batch in trained) / seconds
            for kind, speed in found.items():
                speeds.setdefault(kind, [])
                if turn:  # the first turn warms up
                    speeds[kind].append(speed)
    medians = {kind: statistics.median(values) for kind, values in speeds.items()}
    table = Table("kind", "tokens/s", "slowest turn", "fastest turn", "times training")
    for kind, values in speeds.items():
        row = [f"{speed:,.0f}" for speed in (medians[kind], min(values), max(values))]
        table.add_row(kind, *row, f"{medians[kind] / medians['training']:.0f}")
    Console().print(table)
    figures = {
        **{f"{kind}_tokens_per_s": round(speed) for kind, speed in medians.items()},
        "ratio": round(min(medians[kind] for kind in kinds) / medians["training"], 1),
        "written_documents_tokens_per_s": round(text_speed),
        "written_chats_tokens_per_s": round(chat_speed),
        "threads": torch.get_num_threads(),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
