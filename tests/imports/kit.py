"""Folders as nanochat and transformers write them, with a little model in each."""

import json
import pickle
from pathlib import Path
from typing import Any

import tiktoken
import torch

from imprint.model import Model, ModelConfig
from imprint.tokenizer import SPECIAL
from reference import lively

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""That of nanochat's tokenizer, which is part of the file format."""
BYTES = {bytes([number]): number for number in range(256)}
RANKS = BYTES | {b"th": 256, b"the": 257, b" the": 258, b"in": 259, b"ing": 260}
VOCABULARY = len(RANKS) + len(SPECIAL)


def encoding(
    ranks: dict[bytes, int], *, first: int | None = None, **more: Any
) -> tiktoken.Encoding:
    """An encoding as nanochat makes it; ``first`` is the id of the first special token."""
    first = len(ranks) if first is None else first
    special = {token: first + place for place, token in enumerate(SPECIAL)}
    values = {"pat_str": PATTERN, "mergeable_ranks": ranks, "special_tokens": special, **more}
    return tiktoken.Encoding("rustbpe", **values)


def pickled(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))
    return path


def little(**more: Any) -> Model:
    """A model that fits the encoding of ``RANKS``."""
    return lively(ModelConfig(depth=2, vocabulary=VOCABULARY, context=32, **more))


def checkpoint(folder: Path, model: Model, *, step: int, prefix: str = "", **more: Any) -> Path:
    """Write what nanochat writes after ``step`` steps, the embedding in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {prefix + name: weight for name, weight in model.state_dict().items()}
    first = f"{prefix}transformer.wte.weight"
    weights[first] = weights[first].bfloat16()
    torch.save(weights, folder / f"model_{step:06d}.pt")
    torch.save({}, folder / f"optim_{step:06d}_rank0.pt")
    config = model.config
    about = {
        "sequence_len": config.context,
        "vocab_size": config.vocabulary,
        "n_layer": config.depth,
        "n_head": config.n_head,
        "n_kv_head": config.n_keys,
        "n_embd": config.width,
        **more,
    }
    meta = {"step": step, "val_bpb": 0.81, "model_config": about, "user_config": {"run": "dummy"}}
    (folder / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    return folder


def base_dir(folder: Path) -> Path:
    """Write nanochat's base directory with one model, after steps 5 and 12; return it."""
    checkpoint(folder / "base_checkpoints" / "d2", lively(little().config), step=5)
    checkpoint(folder / "base_checkpoints" / "d2", little(), step=12)
    pickled(folder / "tokenizer" / "tokenizer.pkl", encoding(RANKS))
    torch.save(torch.ones(VOCABULARY), folder / "tokenizer" / "token_bytes.pt")
    return folder
