"""What a paid stage makes of a small input is pinned: a change of it has to raise VERSION.

Ids are pinned to the bit; losses roughly, because bits differ between kinds of CPU.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training_kit as kit
from imprint import artifacts
from imprint.dataset.batch import Data
from imprint.dataset.chats import Chats
from imprint.dataset.documents import Documents
from imprint.dataset.mixture import Share, openings
from imprint.dataset.store import Store
from imprint.stages import base, mid, sft, tokenizer, tokens
from imprint.tokenizer import Tokenizer

STAGES: dict[str, Any] = {
    "tokenizer": tokenizer,
    "tokens": tokens,
    "base": base,
    "mid": mid,
    "sft": sft,
}

PINNED: dict[str, tuple[int, Any, Any]] = {
    "tokenizer": (2, "71a50a33988fefb9", None),
    "tokens": (1, "caa363dea17ed147", None),
    "base": (2, "434aa2d2d64cd4e9", [5.7, 5.59, 5.45, 5.34]),
    "mid": (6, "34adadb048e8e9e7", [5.17, 5.15, 4.93, 4.69]),
    "sft": (6, "34adadb048e8e9e7", [5.11, 5.53, 4.92, 4.75]),
}
"""VERSION, digest of the ids, and losses of the first steps of each stage."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.project(tmp_path_factory.mktemp("pinned"))


def digest(data: Data) -> str:
    total = hashlib.sha256()
    for step in range(data.steps):
        batch = data.batch(step)
        assert batch.where_N is None or len(batch.where_N) > 0
        for part in (batch.ids_BT, batch.where_N, batch.labels_N):
            total.update(b"all" if part is None else part.numpy().tobytes())
    return total.hexdigest()[:16]


def made(stage: str, project: Path, folder: Path) -> tuple[str, list[float] | None]:
    words = Tokenizer.load(project / "tokenizer.json")
    told = Store.open(project / "tokens" / "identity.json", "train", tokenizer=words.digest)
    if stage == "tokenizer":
        return words.digest[:16], None
    if stage == "tokens":
        names = ("corpus", "identity", "sft")
        found = [artifacts.sha256(project / "tokens" / f"{name}.json") for name in names]
        return artifacts.digest(found)[:16], None
    if stage == "base":
        documents = Documents(
            Store.open(project / "tokens" / "corpus.json", "train", tokenizer=words.digest),
            context=64,
            batch_tokens=256,
            tokens=1500,
            seed=5,
        )
        return digest(documents), losses(project / "metrics" / "base.jsonl")
    kit.tuned(project, folder, stage=stage, identity_epochs=0.5)
    rows = Share(told, np.arange(len(told)), openings(len(told), whole=0.5, seed=5))
    chats = Chats([rows], tokenizer=words, context=64, batch_tokens=256, seed=5)
    return digest(chats), losses(folder / "metrics" / f"{stage}.jsonl")


def losses(metrics: Path) -> list[float]:
    return [round(line["loss"], 2) for line in kit.lines(metrics)][:4]


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_makes_changes_with_its_version_only(
    stage: str, project: Path, tmp_path: Path
) -> None:
    version, ids, numbers = PINNED[stage]
    found = made(stage, project, tmp_path)
    now = STAGES[stage].VERSION
    same = found[0] == ids and found[1] == (numbers and pytest.approx(numbers, abs=0.011))
    if now == version and not same:
        pytest.fail(
            f"{stage} makes something else than before: {found}. If that is meant, raise VERSION "
            f"in src/imprint/stages/{stage}.py to {version + 1} and pin the new values here."
        )
    if now != version:
        pytest.fail(f"VERSION of {stage} is {now}: pin ({now}, {found[0]!r}, {found[1]}) here.")
