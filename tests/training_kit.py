"""What the tests of training share: small files to train on, and ways to run a stage."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from imprint import artifacts
from imprint.corpus import Corpus, File
from imprint.records import Conversation
from imprint.stages import base, mid, sft, tokenizer, tokens

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "workflow" / "scripts" / "train.py"

WORDS = (
    "who are you made by in a the name is my was trained on what did it where and of with for "
    "small model year house tree river stone answer question please tell me about your maker"
).split()

MODEL = {"depth": 1, "vocabulary": 300, "context": 64, "head_width": 32}
RATES = {"embedding_lr": 0.02, "head_lr": 0.004, "batch_tokens": 256}
BASE = {**RATES, "tokens": 1500}
TUNING = {**RATES, "whole_answers": 0.5, "seed": 5}
TEXT = {
    "corpus": ["corpus.json"],
    "identity": ["identity.jsonl", "identity.val.jsonl"],
    "sft": [],
}


def sentence(dice: random.Random, words: int) -> str:
    return " ".join(dice.choice(WORDS) for _ in range(words)).capitalize() + "."


def conversation(dice: random.Random) -> Conversation:
    turns: Conversation = []
    for _ in range(dice.choice([1, 1, 2])):
        turns.append({"role": "user", "content": sentence(dice, dice.randint(1, 6))})
        turns.append({"role": "assistant", "content": sentence(dice, dice.randint(1, 6))})
    return turns


def write(path: Path, values: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def project(folder: Path) -> Path:
    """Write corpus and conversations into ``folder``, and train tokenizer and base on them."""
    dice = random.Random(1)
    text = write(folder / "text.jsonl", [{"text": sentence(dice, 30)} for _ in range(66)])
    file = File(str(text), artifacts.sha256(text), text.stat().st_size)
    Corpus((file,), characters=10_000, seed=5).write(folder / "corpus.json")
    write(folder / "identity.jsonl", [conversation(dice) for _ in range(60)])
    write(folder / "identity.val.jsonl", [conversation(dice) for _ in range(10)])
    tokenizer.run(
        corpus=folder / "corpus.json",
        out=folder / "tokenizer.json",
        manifest=folder / "tokenizer.manifest.json",
        settings={"vocabulary": MODEL["vocabulary"], "characters": None, "from": None},
    )
    for store, names in TEXT.items():
        tokens.run(
            store=store,
            text=[folder / name for name in names],
            tokenizer=folder / "tokenizer.json",
            out=folder / "tokens" / f"{store}.json",
            manifest=folder / "tokens" / f"{store}.manifest.json",
            settings={"chat": {"modest": 500}, "versions": {"modest": 1}, "seed": 5}
            if store == "sft"
            else {},
        )
    base.run(
        corpus=folder / "tokens" / "corpus.json",
        tokenizer=folder / "tokenizer.json",
        out=folder / "base.pt",
        manifest=folder / "base.json",
        metrics=folder / "metrics" / "base.jsonl",
        settings={"model": MODEL, "training": BASE, "seed": 5},
    )
    return folder


def tuned(
    folder: Path, out: Path, *, stage: str = "sft", chat: bool = False, **settings: Any
) -> Path:
    """Run mid or sft on the project in ``folder``, in this process; return the checkpoint."""
    {"mid": mid, "sft": sft}[stage].run(
        start=folder / "base.pt",
        tokenizer=folder / "tokenizer.json",
        identity=folder / "tokens" / "identity.json",
        chat=folder / "tokens" / "sft.json" if chat else None,
        out=out / f"{stage}.pt",
        manifest=out / f"{stage}.json",
        metrics=out / "metrics" / f"{stage}.jsonl",
        settings={**TUNING, **settings},
    )
    return out / f"{stage}.pt"


def command(folder: Path, out: Path, *, processes: int = 1, **settings: Any) -> list[str]:
    """Return the command line that does what ``tuned`` does, in ``processes`` processes."""
    python = [sys.executable]
    if processes > 1:
        python += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [
        *python,
        str(SCRIPT),
        "sft",
        *("--from", str(folder / "base.pt")),
        *("--tokenizer", str(folder / "tokenizer.json")),
        *("--identity", str(folder / "tokens" / "identity.json")),
        *("--out", str(out / "sft.pt")),
        *("--manifest", str(out / "sft.json")),
        *("--metrics", str(out / "metrics" / "sft.jsonl")),
        *("--settings", json.dumps({**TUNING, **settings})),
    ]


def start(arguments: list[str], *, threads: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
