import hashlib
import json
import math
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import training_kit as kit
from imprint import artifacts, checkpoint
from imprint.checkpoint import States
from imprint.dataset.batch import Batch
from imprint.dataset.chats import Chats
from imprint.dataset.documents import Documents
from imprint.errors import ImprintError
from imprint.model import Model, ModelConfig
from imprint.settings import Tuning
from imprint.stages import mid, sft
from imprint.tokenizer import Tokenizer
from imprint.training import gradients
from imprint.training import loop as train
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kit.project(tmp_path_factory.mktemp("training"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_run_gives_the_same_bytes(project: Path, tmp_path: Path) -> None:
    digests = {sha256(kit.run_sft(project, tmp_path / name)) for name in ("one", "two")}
    assert len(digests) == 1
    assert sha256(kit.run_sft(project, tmp_path / "three", seed=6)) not in digests


def test_minutes_between_states_leave_the_checkpoint_as_it_is(
    project: Path, tmp_path: Path
) -> None:
    one = kit.run_sft(project, tmp_path / "one", checkpoint_minutes=1e-6)
    assert sha256(one) == sha256(kit.run_sft(project, tmp_path / "two"))


def test_a_stage_leaves_checkpoint_manifest_and_metrics_and_nothing_else(
    project: Path, tmp_path: Path
) -> None:
    out = kit.run_sft(project, tmp_path, checkpoint_minutes=1e-6)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"sft.pt", "sft.json", "metrics/sft.jsonl"}
    manifest = artifacts.read_json(tmp_path / "sft.json")
    assert manifest["outputs"] == {str(out): sha256(out)}
    assert manifest["identity_conversations"] == 60
    assert 0 < manifest["val_loss"] < math.log(300)
    assert manifest["version"] == sft.VERSION
    keys = {"step", "loss", "lr", "tokens_per_s", "grad_norm", "elapsed"}
    lines = kit.lines(tmp_path / "metrics" / "sft.jsonl")
    assert all(set(line) == keys for line in lines)
    assert lines[-1]["step"] == manifest["steps"] == checkpoint.load(out).step


def test_base_learns_and_says_how_well_in_bits_a_byte(project: Path) -> None:
    manifest = artifacts.read_json(project / "base.json")
    lines = kit.lines(project / "metrics" / "base.jsonl")
    vocabulary = Tokenizer.load(project / "tokenizer.json").vocabulary
    assert lines[0]["loss"] == pytest.approx(math.log(vocabulary), abs=0.01)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert 0 < manifest["val_bpb"] < 8


def test_a_run_killed_at_any_step_ends_with_the_same_bytes(project: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"checkpoint_minutes": 0.05 / 60, "identity_epochs": 30.0}
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


def test_a_stopped_run_saves_its_state_first(project: Path, tmp_path: Path) -> None:
    child = kit.start(kit.command(project, tmp_path, identity_epochs=300.0))
    assert child.stderr is not None
    assert "tokens/s" in child.stderr.readline()
    child.terminate()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM, errors
    assert "run again to go on" in errors
    assert len(list((tmp_path / "state" / "sft").glob("*/step-*.pt"))) == 1


def test_ctrl_c_is_a_wish_to_stop_while_training_only() -> None:
    with train.stoppable() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.number == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_other_settings_never_resume_an_old_run(project: Path, tmp_path: Path) -> None:
    old = States(tmp_path / "state" / "sft" / "0000000000000000")
    old.save(5, {"step": 5})
    kit.run_sft(project, tmp_path)
    assert old.newest() == {"step": 5}


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


@pytest.mark.parametrize("batch_tokens", [1, 33, 4096])
def test_the_shortest_context_and_smallest_batch_have_a_finite_loss(
    batch_tokens: int, words: Tokenizer, tmp_path: Path
) -> None:
    config = ModelConfig(depth=1, vocabulary=words.vocabulary, context=32, head_width=32)
    rows = words.render_batch(
        [
            [{"role": "user", "content": "?" * number}, {"role": "assistant", "content": "A"}]
            for number in (1, 5, 60)
        ]
    )
    data = Chats(rows, tokenizer=words, context=32, batch_tokens=batch_tokens, seed=1)
    model = Model(config, seed=1)
    outcome = loop(model, data, tmp_path)
    assert data.dropped == 1
    assert all(math.isfinite(line["loss"]) for line in outcome.lines)
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def loop(model: Model, data: Chats, folder: Path, **settings: Any) -> train.Outcome:
    return train.train(
        model,
        data,
        settings=Tuning(**{"batch_tokens": 256, **settings}),
        ranks=ALONE,
        label="sft",
        states=States(folder / "state" / "sft" / "key"),
        metrics=folder / "metrics.jsonl",
    )


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    words: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialogue = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    data = Chats(
        words.render_batch([dialogue] * 40),  # type: ignore[list-item]
        tokenizer=words,
        context=32,
        batch_tokens=64,
        seed=1,
    )
    model = Model(ModelConfig(depth=1, vocabulary=words.vocabulary, context=32), seed=1)
    honest, count = Gradients.backward, iter(range(100))

    def broken(self: Gradients, batch: Batch) -> float:
        loss = honest(self, batch)
        return math.nan if next(count) == 4 else loss

    monkeypatch.setattr(Gradients, "backward", broken)
    with pytest.raises(ImprintError, match="sft: the loss is nan at step 5"):
        loop(model, data, tmp_path, checkpoint_minutes=1e-9)
    state = States(tmp_path / "state" / "sft" / "key").newest()
    assert state is not None and state["step"] == 4
    assert all(bool(weight.isfinite().all()) for weight in state["weights"].values())


def test_rows_that_go_through_in_parts_give_the_same_gradient(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    rows = words.render_batch([kit.conversation(dice) for _ in range(12)])
    chats = Chats(rows, tokenizer=words, context=96, batch_tokens=2000, seed=1)
    texts = Documents(
        ["Who? " * 99], tokenizer=words, context=32, batch_tokens=99, tokens=9, seed=1
    )
    for batch in (chats.batch(0), texts.batch(0)):
        model = Model(ModelConfig(depth=1, vocabulary=words.vocabulary, context=96), seed=1)
        with torch.no_grad():
            model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(1))
        found = []
        for most in (10_000, 200, 1):
            monkeypatch.setattr(gradients, "CPU_TOKENS", most)
            with Gradients(model, dtype=torch.float32) as worker:
                nats = worker.backward(batch)
            found.append((nats, [weight.grad for weight in model.parameters()]))
        for nats, grads in found[1:]:
            assert nats == pytest.approx(found[0][0])
            torch.testing.assert_close(grads, found[0][1], atol=1e-5, rtol=1e-4)


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
        kit.run_sft(project, tmp_path, matrix_lr=-1.0)


def test_nothing_to_train_on_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(ImprintError, match="sft: nothing to train on"):
        kit.run_sft(project, tmp_path, identity_epochs=0.0)


def test_mid_and_sft_with_half_a_pass_each_see_every_row_once(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    honest = Tokenizer.render_batch

    def watched(self: Tokenizer, conversations: Any) -> Any:
        rows = list(conversations)
        seen.extend(json.dumps(row) for row in rows)
        return honest(self, rows)

    monkeypatch.setattr(Tokenizer, "render_batch", watched)
    for stage in (mid, sft):
        stage.run(
            start=project / "base.pt",
            tokenizer=project / "tokenizer.json",
            identity=project / "identity.jsonl",
            validation=None,
            out=tmp_path / "out.pt",
            manifest=tmp_path / "out.json",
            metrics=tmp_path / "out.jsonl",
            settings={**kit.TUNING, "identity_epochs": 0.5},
        )
    rows = (project / "identity.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(seen) == sorted(rows)


def test_a_small_dataset_is_repeated_until_there_is_enough_of_it(
    project: Path, tmp_path: Path
) -> None:
    def examples(**settings: Any) -> int:
        kit.run_sft(project, tmp_path, **settings)
        told = json.loads((tmp_path / "sft.json").read_text(encoding="utf-8"))
        return int(told["identity_conversations"])

    count = len((project / "identity.jsonl").read_text(encoding="utf-8").splitlines())
    assert examples(identity_epochs=1.0, identity_least=3 * count) == 3 * count
    assert examples(identity_epochs=2.0, identity_least=count) == 2 * count


def test_general_chat_does_not_drown_a_small_dataset(project: Path, tmp_path: Path) -> None:
    kit.run_sft(project, tmp_path, identity_epochs=1.0, chat_conversations=500, chat_ratio=0.5)
    told = json.loads((tmp_path / "sft.json").read_text(encoding="utf-8"))
    assert told["chat_conversations"] == math.ceil(0.5 * told["identity_conversations"])
