import hashlib
import logging
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import training_kit as kit
from imprint import artifacts, checkpoint, hardware
from imprint.dataset import mixture
from imprint.dataset.writer import Piece, write
from imprint.errors import ImprintError
from imprint.model import Model, ModelConfig
from imprint.records import Conversation
from imprint.stages import base, sft
from imprint.tokenizer import Tokenizer
from imprint.training import loop, tuning
from imprint.training.distributed import Ranks
from imprint.training.metrics import ORDER
from imprint.training.states import States
from training import runner
from training.runner import Ramps


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.project(tmp_path_factory.mktemp("training"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_run_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    digests = {sha256(kit.tuned(project, tmp_path / name)) for name in ("one", "two")}
    assert len(digests) == 1
    assert sha256(kit.tuned(project, tmp_path / "three", seed=6)) not in digests


def test_minutes_between_states_leave_the_checkpoint_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    one = kit.tuned(project, tmp_path / "one", checkpoint_minutes=1e-6)
    assert sha256(one) == sha256(kit.tuned(project, tmp_path / "two"))


def test_a_stage_leaves_checkpoint_manifest_and_metrics_and_nothing_else(
    project: Path, tmp_path: Path
) -> None:
    out = kit.tuned(project, tmp_path, checkpoint_minutes=1e-6)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"sft.pt", "sft.json", "metrics/sft.jsonl"}
    manifest = artifacts.read_json(tmp_path / "sft.json")
    assert manifest["outputs"] == {str(out): sha256(out)}
    assert manifest["identity_conversations"] == 60
    assert 0 < manifest["val_loss"] < math.log(300)
    assert manifest["version"] == sft.VERSION
    lines = kit.lines(tmp_path / "metrics" / "sft.jsonl")
    assert all(tuple(line) == ORDER for line in lines)
    assert lines[-1]["step"] == manifest["steps"] == checkpoint.load(out).step


def test_base_learns_and_says_how_well_in_bits_a_byte(project: Path) -> None:
    manifest = artifacts.read_json(project / "base.json")
    lines = kit.lines(project / "metrics" / "base.jsonl")
    vocabulary = Tokenizer.load(project / "tokenizer.json").vocabulary
    assert lines[0]["loss"] == pytest.approx(math.log(vocabulary), abs=0.01)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert 0 < manifest["val_bpb"] < 8


def test_a_corpus_that_is_too_short_is_repeated_and_that_is_said(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="imprint"):
        base.run(
            corpus=project / "tokens" / "corpus.json",
            tokenizer=project / "tokenizer.json",
            out=tmp_path / "base.pt",
            manifest=tmp_path / "base.json",
            metrics=tmp_path / "base.jsonl",
            settings={"model": kit.MODEL, "training": {**kit.BASE, "tokens": 13_000}, "seed": 5},
        )
    found = re.search(r"the corpus has 5,\d+ tokens, .* it is seen about (.*) times", caplog.text)
    assert found
    passes = artifacts.read_json(tmp_path / "base.json")["passes"]
    assert float(found[1]) == pytest.approx(passes, rel=0.1) and 2.4 < passes < 3.2


def test_a_run_killed_at_any_step_ends_with_the_same_bytes_and_costs_what_both_took(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPRINT_USD_PER_HOUR", "3600")  # a dollar a second
    settings: dict[str, Any] = {"checkpoint_minutes": 0.05 / 60, "identity_epochs": 8.0}
    child = kit.start(kit.command(project, tmp_path / "killed", **settings))
    state = tmp_path / "killed" / "state" / "sft"
    while not list(state.glob("*/step-*.pt")) and child.poll() is None:
        time.sleep(0.005)
    child.kill()
    child.communicate()
    assert list(state.glob("*/step-*.pt")) and not (tmp_path / "killed" / "sft.pt").exists()
    child = kit.start(kit.command(project, tmp_path / "killed", **settings))
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert "goes on after step" in errors
    child = kit.start(kit.command(project, tmp_path / "whole", **settings))
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert sha256(tmp_path / "killed" / "sft.pt") == sha256(tmp_path / "whole" / "sft.pt")
    assert not (tmp_path / "killed" / "state").exists()
    lines = [kit.lines(tmp_path / name / "metrics" / "sft.jsonl") for name in ("killed", "whole")]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    killed, whole = (
        artifacts.read_json(tmp_path / name / "sft.json") for name in ("killed", "whole")
    )
    assert whole["cost_usd"] == pytest.approx(whole["seconds"], abs=2)
    assert killed["cost_usd"] > killed["seconds"] + 0.02


def test_a_manifest_foretells_time_and_cost_of_the_tokens_on_a_known_device(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kit.tuned(project, tmp_path / "unknown")
    assert artifacts.read_json(tmp_path / "unknown" / "sft.json")["forecast"] is None
    monkeypatch.setattr(hardware, "peak_of", lambda device: 1e6)
    monkeypatch.setenv("IMPRINT_USD_PER_HOUR", "7.2")
    with caplog.at_level(logging.INFO, logger="imprint"):
        kit.tuned(project, tmp_path)
    manifest = artifacts.read_json(tmp_path / "sft.json")
    tokens = manifest["steps"] * kit.TUNING["batch_tokens"]
    seconds = manifest["flops_per_token"] * tokens / (0.4 * 1e6)
    told = manifest["forecast"]
    assert told["seconds"] == pytest.approx(seconds, abs=0.1) and told["seconds"] > 1000
    assert told["usd"] == pytest.approx(seconds * 7.2 / 3600, abs=1e-3)
    assert f"sft: about {told['seconds']:.0f} s, ${told['usd']:.2f}" in caplog.messages


def test_other_settings_never_resume_an_old_run(project: Path, tmp_path: Path) -> None:
    old = States(tmp_path / "state" / "sft" / "0000000000000000")
    old.save(5, {})
    kit.tuned(project, tmp_path)
    assert [path.name for path in old.paths()] == ["step-000000005.pt"]


def test_one_core_gives_the_bytes_of_two(project: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        child = kit.start(kit.command(project, tmp_path / str(threads)), threads=threads)
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    assert sha256(tmp_path / "1" / "sft.pt") == sha256(tmp_path / "2" / "sft.pt")


def test_two_processes_train_as_one(project: Path, tmp_path: Path) -> None:
    one = kit.start(kit.command(project, tmp_path / "one"))
    two = kit.start(kit.command(project, tmp_path / "two", processes=2))
    for child in (one, two):
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
    losses = [
        [line["loss"] for line in kit.lines(tmp_path / name / "metrics" / "sft.jsonl")]
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    first, second = (artifacts.read_json(tmp_path / name / "sft.json") for name in ("one", "two"))
    assert (first["processes"], second["processes"]) == (1, 2)
    assert second["val_loss"] == pytest.approx(first["val_loss"], rel=0.02)


def test_an_error_is_one_line(project: Path, tmp_path: Path) -> None:
    arguments = kit.command(project, tmp_path)
    arguments[arguments.index("--from") + 1] = str(tmp_path / "absent.pt")
    child = kit.start(arguments)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 1
    assert errors.splitlines() == [
        f"error: {tmp_path}/absent.pt: no such file. Run `make identity` to build it."
    ]


def test_a_wrong_setting_is_named(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match=r"sft\.matrix_lr: .*greater than 0"):
        kit.tuned(project, tmp_path, matrix_lr=-1.0)


def test_nothing_to_train_on_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="sft: nothing to train on"):
        kit.tuned(project, tmp_path, identity_epochs=0.0)


def test_mid_and_sft_with_half_a_pass_each_see_every_row_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def passes(*given: Any, **named: Any) -> Any:
        rows = mixture.passes(*given, **named)
        seen.extend(rows.tolist())
        return rows

    monkeypatch.setattr(tuning, "passes", passes)
    for stage in ("mid", "sft"):
        kit.tuned(project, tmp_path, stage=stage, identity_epochs=0.5)
    assert sorted(seen) == list(range(60))


def told(project: Path, out: Path, **settings: Any) -> tuple[int, int]:
    """Conversations about the identity and about anything else that sft says it has seen."""
    kit.tuned(project, out, **settings)
    manifest = artifacts.read_json(out / "sft.json")
    return manifest["identity_conversations"], manifest["chat_conversations"]


def test_a_small_dataset_is_repeated_until_there_is_enough_of_it(
    project: Path, tmp_path: Path
) -> None:
    assert told(project, tmp_path, identity_epochs=1.0, identity_least=180) == (180, 0)
    assert told(project, tmp_path, identity_epochs=2.0, identity_least=60) == (120, 0)


def test_general_chat_does_not_drown_a_small_dataset(project: Path, tmp_path: Path) -> None:
    assert told(project, tmp_path, chat=True, identity_share=0.75) == (60, 20)


@pytest.mark.parametrize("packed", [False, True])
def test_sft_with_a_row_of_128_tokens_a_batch_never_gives_what_is_no_number(
    packed: bool, project: Path, tmp_path: Path
) -> None:
    """Answers of one word or many, whole or their first words, and talks of more than a row."""
    words = Tokenizer.load(project / "tokenizer.json")
    model = Model(ModelConfig(depth=1, vocabulary=300, context=128, head_width=32), seed=1)
    told = {"tokenizer": words.digest, "settings": {}, "seed": 1, "step": 0, "stage": "base"}
    checkpoint.save(tmp_path / "base.pt", model, **told)  # type: ignore[arg-type]
    words.save(tmp_path / "tokenizer.json")
    turns: list[Conversation] = [
        [{"role": "user", "content": "Who"}, {"role": "assistant", "content": "a " * size}]
        for size in (1, 1, 1, 2, 3, 10, 60)
    ]
    rows = [turn * copies for turn in turns for copies in (1, 1, 2, 30)]
    piece = Piece("chats", [(part, row) for part in ("train", "validation") for row in rows], 56)
    write(tmp_path / "tokens" / "identity.json", tokenizer=words, pieces=[piece])
    batch_tokens = 128 if packed else 1  # fewer than a row has: a row
    kit.tuned(tmp_path, tmp_path, packed=packed, batch_tokens=batch_tokens)
    lines = kit.lines(tmp_path / "metrics" / "sft.jsonl")
    assert len(lines) == artifacts.read_json(tmp_path / "sft.json")["steps"] > 9
    figures = [value for line in lines for value in line.values() if value is not None]
    assert all(map(math.isfinite, figures))
    weights = checkpoint.load(tmp_path / "sft.pt").weights
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


@pytest.mark.parametrize("kind", ["base", "sft"])
def test_the_mean_loss_counts_every_supervised_token_once(kind: str) -> None:
    data, model = Ramps(kind, 3), Model(runner.CONFIG, seed=1)
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1))
        logits = [model(data.batch(step).ids_BT).flatten(0, 1) for step in range(3)]
    nats, tokens = 0.0, 0
    for step, said in enumerate(logits):
        batch = data.batch(step)
        said = said if batch.where_N is None else said[batch.where_N]
        nats += float(torch.nn.functional.cross_entropy(said, batch.labels_N, reduction="sum"))
        tokens += len(batch.labels_N)
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert loop.evaluate(model, data, ranks=ranks) == pytest.approx(nats / tokens, rel=0.01)
