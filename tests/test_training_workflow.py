"""Training on what people bring: their text and chat, and models that others have trained."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from imports import kit
from imprint.settings import merged
from imprint.shape import ModelConfig
from reference import lively
from training_kit import conversation, sentence, write
from workflow_kit import Project, copied, copy_of

pytestmark = pytest.mark.workflow


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """The project before its first run."""
    return copied(tmp_path / "fresh")


def configure(project: Project, **changed: Any) -> None:
    path = project.root / "config" / "test.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merged(given, changed)), encoding="utf-8")


def manifest(project: Project, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.results / name).read_text(encoding="utf-8"))
    return found


def test_a_model_from_nanochat_learns_who_it_is_without_a_corpus(
    fresh: Project, tmp_path: Path
) -> None:
    folder = tmp_path / "nanochat"
    model = lively(ModelConfig(depth=2, vocabulary=kit.VOCABULARY, context=128))
    kit.checkpoint(folder / "base_checkpoints" / "d2", model, step=12)
    kit.pickled(folder / "tokenizer" / "tokenizer.pkl", kit.encoding(kit.RANKS))
    configure(fresh, base={"from": str(folder)})
    refused = fresh.snakemake("results/sft.pt")
    said = refused.stdout + refused.stderr
    assert "model.depth: 1, but the model in" in said and "start" not in said
    configure(fresh, model={"depth": 2})
    done = fresh.snakemake()
    assert done.returncode == 0, done.stderr
    base = manifest(fresh, "base.json")
    assert base["source"] == "nanochat d2, step 12"
    assert str(folder / "base_checkpoints" / "d2" / "model_000012.pt") in base["inputs"]
    assert not (fresh.results / "corpus").exists()
    assert manifest(fresh, "sft.json")["steps"] > 0
    assert "val_bpb" not in manifest(fresh, "eval/sft.json")
    assert not fresh.would_run()
    configure(fresh, model={"context": 32, "vocabulary": 600}, base={"matrix_lr": 0.5})
    assert not fresh.would_run()  # what the folder decides
    checked = fresh.imprint("verify")
    assert checked.returncode == 0, checked.stderr
    kit.checkpoint(folder / "base_checkpoints" / "d2", lively(model.config), step=13)
    assert set(fresh.would_run()) >= {"base", "mid", "sft"}


def test_files_of_the_user_are_trained_on_packed_by_two_processes(
    fresh: Project, tmp_path: Path
) -> None:
    dice = random.Random(4)
    texts = [sentence(dice, 40) for _ in range(200)]
    for number in range(2):
        part = pyarrow.table({"text": texts[number::2]})
        pyarrow.parquet.write_table(part, tmp_path / f"text-{number}.parquet")
    chats = write(tmp_path / "chats.jsonl", [conversation(dice) for _ in range(60)])
    configure(
        fresh,
        model={"context": 128},  # the letters of these words are all its tokenizer knows
        corpus={"source": str(tmp_path / "*.parquet")},
        mid={"chat": {str(chats): 50, "modest": 5}, "packed": True},
        sft={"chat": {}, "packed": True},
    )
    done = fresh.snakemake("results/sft.pt", "--set-resources", "mid:gpu=2", "sft:gpu=2")
    assert done.returncode == 0, done.stderr
    told = manifest(fresh, "mid.json")
    assert told["processes"] == 2
    assert told["chat_conversations"] == 55 - manifest(fresh, "tokens/mid.manifest.json")[
        "tokens"
    ].get("validation", 0)
    assert manifest(fresh, "sft.json")["chat_conversations"] == 0
    assert not fresh.would_run("results/sft.pt")
    with chats.open("a", encoding="utf-8") as file:
        file.write(json.dumps(conversation(dice)) + "\n")
    assert fresh.would_run("results/sft.pt") == Counter(tokens=1, mid=1, sft=1)
    (tmp_path / "text-1.parquet").write_bytes(b"PAR1 and then nothing")
    broken = fresh.snakemake("results/sft.pt")
    assert broken.returncode != 0
    assert "text-1.parquet: " in broken.stderr and "Traceback" not in broken.stderr


def test_another_identity_is_taught_by_sft_alone_and_costs_no_chat(
    finished: Project, tmp_path: Path
) -> None:
    project = copy_of(finished, tmp_path / "project")
    configure(
        project,
        identity_stages=["sft"],
        mid={"chat": {"modest": 2000}},
        sft={"chat": {"modest": 1000}, "identity_least": 400},
    )
    done = project.snakemake("results/eval/mid.json", "results/sft.pt")
    assert done.returncode == 0, done.stderr
    assert manifest(project, "mid.json")["identity_conversations"] == 0
    kept = {name: (project.results / name).read_bytes() for name in ("base.pt", "mid.pt", "sft.pt")}
    other = ["identity=config/identities/fathom.yaml"]
    would = project.would_run("results/eval/sft.json", config=other)
    assert would == Counter(plan=3, shards=3, identity=1, tokens=1, sft=1, evaluate=1)
    done = project.snakemake("results/eval/sft.json", config=other)
    assert done.returncode == 0, done.stderr
    changed = [name for name in kept if (project.results / name).read_bytes() != kept[name]]
    assert changed == ["sft.pt"]
    taught = manifest(project, "sft.json")
    assert taught["identity_conversations"] == 400
    assert 980 < taught["chat_conversations"] < 1000  # without those held back
    assert taught["val_loss"] < 4  # 3.0; 5.7 where the identity is hardly seen
    before, after = (manifest(project, f"eval/{name}.json")["chat_loss"] for name in ("mid", "sft"))
    assert after < before + 0.05  # 0.23 after 0.38; 0.57 if sft saw no chat
