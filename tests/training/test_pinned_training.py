"""What a paid stage makes of a small input is pinned: a change of it has to raise VERSION.

Ids are pinned to the bit; losses roughly, because bits differ between kinds of CPU.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest

import training_kit as kit
from imprint import records
from imprint.dataset.batch import Data
from imprint.dataset.chats import Chats, openings
from imprint.dataset.documents import Documents
from imprint.stages import base, mid, sft, tokenizer
from imprint.tokenizer import Tokenizer

STAGES: dict[str, Any] = {"tokenizer": tokenizer, "base": base, "mid": mid, "sft": sft}

PINNED: dict[str, tuple[int, Any, Any]] = {
    "tokenizer": (1, "7aaa484e45e0744f", None),
    "base": (1, "88fd5bd835edcce1", [5.7, 5.61, 5.47, 5.33]),
    "mid": (3, "33846aaba4f23052", [5.12, 5.12, 4.86, 4.65]),
    "sft": (3, "33846aaba4f23052", [5.09, 5.22, 4.82, 4.56]),
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
    if stage == "tokenizer":
        return words.digest[:16], None
    if stage == "base":
        documents = Documents(
            records.texts(project / "text.jsonl"),
            tokenizer=words,
            context=64,
            batch_tokens=256,
            tokens=1500,
            seed=5,
        )
        return digest(documents), losses(project / "metrics" / "base.jsonl")
    STAGES[stage].run(
        start=project / "base.pt",
        tokenizer=project / "tokenizer.json",
        identity=project / "identity.jsonl",
        validation=None,
        out=folder / "out.pt",
        manifest=folder / "out.json",
        metrics=folder / "out.jsonl",
        settings={**kit.TUNING, "identity_epochs": 0.5},
    )
    told = words.render_batch(records.conversations(project / "identity.jsonl"))
    chats = Chats(
        openings(told, whole=0.5, seed=5),
        tokenizer=words,
        context=64,
        batch_tokens=256,
        seed=5,
    )
    return digest(chats), losses(folder / "out.jsonl")


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
