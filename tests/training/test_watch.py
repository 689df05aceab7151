import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint.engine import Engine
from imprint.errors import ConfigError
from imprint.model import Model
from imprint.settings import Watch
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.metrics import ORDER
from training import runner
from training.runner import Ramps

STEPS = 24


def test_metrics_say_how_fast_and_how_well_and_are_few(tmp_path: Path) -> None:
    _, outcome = runner.run(tmp_path, Ramps("base", 210))
    lines = runner.lines(tmp_path)
    assert [line["step"] for line in lines] == list(range(2, 211, 2))
    assert all(tuple(line) == ORDER for line in lines)
    assert all(line["utilisation"] is None for line in lines)  # a CPU has no known peak
    assert all(line["memory_mb"] > 50 and line["grad_norm"] > 0 for line in lines)
    assert all(0 <= line["data_wait"] <= 1 for line in lines)
    assert 0.2 < lines[-1]["elapsed"] <= outcome.seconds
    assert outcome.tokens == 210 * runner.ROWS * runner.CONFIG.context
    assert outcome.tokens_per_s == pytest.approx(outcome.tokens / outcome.seconds, abs=0.1)


def test_utilisation_is_a_share_of_what_all_devices_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("imprint.hardware.peak_of", lambda device: 1e9)
    monkeypatch.setattr("imprint.progress.EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "imprint"):
        runner.run(tmp_path, Ramps("base", 3))
    for line in runner.lines(tmp_path):
        share = line["tokens_per_s"] * runner.CONFIG.flops_per_token / 1e9
        assert line["utilisation"] == pytest.approx(share, abs=1e-4)
    shown = [text for text in caplog.messages if " loss " in text]
    assert " utilisation " in shown[1]


def test_what_trains_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "imprint"):
        runner.run(tmp_path, Ramps("base", 2))
    threads = torch.get_num_threads()
    assert caplog.messages[0] == f"base: trains on cpu, {threads} threads, processes: 1"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 NVL")
    assert Ranks(0, 8, torch.device("cuda", 0)).device_name == "NVIDIA H100 NVL"


def killed_and_resumed(out: Path, watch: Watch, **environment: str) -> None:
    data = Ramps("base", STEPS, pause=0.01)
    given: dict[str, Any] = {"watch": watch, "environment": environment}
    children = runner.start(out, data, minutes=0.1 / 60, **given)
    runner.after(out, 8, children)
    runner.kill(children)
    runner.finish(children)
    assert not (out / "stage.pt").exists()
    assert runner.finish(runner.start(out, data, **given)) == [0], (out / "log").read_text()


def test_curves_of_a_killed_run_go_on_without_doubled_points(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, Watch(tensorboard=True))
    folder = tmp_path / "tensorboard" / "base"
    assert len(list(folder.iterdir())) == 2
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    found = EventAccumulator(str(folder))
    found.Reload()
    lines = runner.lines(tmp_path)
    for name in ("loss", "lr", "grad_norm"):
        points = [(event.step, event.value) for event in found.Scalars(name)]
        assert [step for step, _ in points] == list(range(1, STEPS + 1))
        assert [value for _, value in points] == pytest.approx([line[name] for line in lines])


def test_a_killed_run_goes_on_as_the_same_run_on_weights_and_biases(
    tmp_path: Path,
) -> None:
    pytest.importorskip("wandb")
    killed_and_resumed(tmp_path, Watch(wandb="imprint"), WANDB_MODE="offline")
    runs = [path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert len(runs) == 2 and len(set(runs)) == 1


def test_weights_and_biases_without_a_key_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"^watch\.wandb: WANDB_API_KEY is not set\. Put"):
        runner.run(tmp_path, Ramps("base", 2), watch=Watch(wandb="imprint"))


@pytest.mark.parametrize(
    ("module", "watch"),
    [
        ("torch.utils.tensorboard", Watch(tensorboard=True)),
        ("wandb", Watch(wandb="imprint")),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    module: str, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package = module.rpartition(".")[2]
    with pytest.raises(ConfigError, match=f"Run `pip install {package}`"):
        runner.run(tmp_path, Ramps("base", 2), watch=watch)
    assert not list(tmp_path.rglob("*"))


def test_a_writer_that_fails_is_told_of_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    from torch.utils.tensorboard import SummaryWriter

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    _, outcome = runner.run(tmp_path, Ramps("base", 5), watch=Watch(tensorboard=True))
    assert len(outcome.lines) == 5
    said = [text for text in caplog.messages if "fails" in text]
    assert said == ["base: TensorBoard fails (no space left); training goes on"]


def test_samples_leave_the_weights_as_they_are(tmp_path: Path, words: Tokenizer) -> None:
    def sampler(model: Model) -> list[str]:
        torch.rand(3)  # what a careless sampler does
        return Engine(model, words).answer([[{"role": "user", "content": "Who?"}]], max_tokens=4)

    data, before = Ramps("sft", 12), torch.get_rng_state()
    watch = Watch(sample_minutes=1e-9)
    silent, _ = runner.run(tmp_path / "silent", data, watch=watch)
    spoken, _ = runner.run(tmp_path, data, watch=watch, sampler=sampler)
    assert all(map(torch.equal, silent.parameters(), spoken.parameters()))
    assert torch.equal(torch.get_rng_state(), before)
    lines = runner.lines(tmp_path, "stage.samples")
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(len(line["samples"]) == 1 for line in lines)
    assert lines[-1]["samples"] == sampler(spoken)


def test_samples_beyond_the_state_are_taken_again_and_a_broken_sampler_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, watch = Ramps("sft", 6), Watch(sample_minutes=1e-9)
    runner.run(tmp_path, data, watch=watch, minutes=1e-9, sampler=lambda model: ["first"])
    runner.states(tmp_path).paths()[-1].unlink()  # now the newest is that of step 5

    runner.run(tmp_path, data, watch=watch, sampler=lambda model: ["second"])
    said = [line["samples"][0] for line in runner.lines(tmp_path, "stage.samples")]
    assert said == ["first"] * 5 + ["second"]

    def broken(model: Model) -> list[str]:
        raise RuntimeError("no voice")

    runner.run(tmp_path / "broken", data, watch=watch, sampler=broken)
    assert caplog.messages.count("sft: no samples (no voice); training goes on") == 1
