import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint.errors import ArtifactError
from imprint.training.states import commit
from training import runner
from training.runner import Ramps

OFTEN = 0.02 / 60
"""Minutes between two states: 20 ms, some steps."""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def figures(out: Path) -> list[tuple[Any, ...]]:
    lines = runner.lines(out)
    return [tuple(line[name] for name in ("step", "loss", "lr", "grad_norm")) for line in lines]


@pytest.mark.parametrize(("kind", "world"), [("base", 1), ("sft", 2)])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    kind: str, world: int, tmp_path: Path
) -> None:
    data = Ramps(kind, 120)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert runner.finish(runner.start(whole, data, world=world)) == [0] * world
    dice = random.Random(kind)
    for end, step in [
        (runner.kill, dice.randint(1, 20)),
        (runner.terminate, dice.randint(30, 40)),
        (runner.kill, dice.randint(50, 60)),
        (runner.kill, dice.randint(70, 85)),
    ]:
        children = runner.start(killed, data, world=world, minutes=OFTEN)
        runner.after(killed, step, children)
        end(children)
        codes = {-signal.SIGKILL} if end is runner.kill else {128 + signal.SIGTERM, -signal.SIGTERM}
        assert set(runner.finish(children)) <= codes, (killed / "log").read_text()
        assert not (killed / "stage.pt").exists()
        # a kill may come when the new state is there and the oldest of three not yet gone
        assert len(runner.states(killed).paths()) <= (3 if end is runner.kill else 2)
    assert runner.finish(runner.start(killed, data, world=world, minutes=OFTEN)) == [0] * world
    assert (killed / "log").read_text().count(f"{kind}: goes on after step") == 4
    assert sha256(killed / "stage.pt") == sha256(whole / "stage.pt")
    assert figures(killed) == figures(whole)
    assert not list(runner.states(killed).folder.glob(".*"))


@pytest.mark.parametrize(("before", "then"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on_with_the_same_data(
    before: int, then: int, tmp_path: Path
) -> None:
    data = Ramps("sft", 60, pause=0.005)
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    children = runner.start(moved, data, world=before, minutes=OFTEN)
    runner.after(moved, 20, children)
    runner.kill(children)
    assert runner.finish(children) == [-signal.SIGKILL] * before
    both = [*runner.start(moved, data, world=then), *runner.start(whole, data)]
    assert runner.finish(both) == [0] * (then + 1)
    losses = [[line[1] for line in figures(out)] for out in (moved, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert max(losses[1]) > 1.2 * min(losses[1])  # another order of batches would show


def test_a_full_disk_costs_a_state_and_not_the_run(tmp_path: Path) -> None:
    data = Ramps("base", 60, pause=0.005)
    children = runner.start(tmp_path, data, minutes=OFTEN)
    runner.after(tmp_path, 10, children)
    runner.kill(children)
    runner.finish(children)
    kept = [path.name for path in runner.states(tmp_path).paths()]
    children = runner.start(tmp_path, data, minutes=OFTEN, limit=20_000)
    assert runner.finish(children) == [1]
    log = (tmp_path / "log").read_text()
    assert re.search(r"base: no state saved after step \d+; training goes on\. .*too large", log)
    assert log.splitlines()[-1].startswith(f"error: {tmp_path}/stage.pt: could not be written")
    assert [path.name for path in runner.states(tmp_path).paths()] == kept
    assert runner.finish(runner.start(tmp_path, data)) == [0]


def test_each_state_is_committed_once_by_the_command_of_the_environment(tmp_path: Path) -> None:
    data = Ramps("base", 20, pause=0.005)
    commit = tmp_path / "commit.sh"
    commit.write_text(f"ls {runner.states(tmp_path).folder} | tail -n 1 >> {tmp_path}/commits\n")
    children = runner.start(
        tmp_path, data, world=2, minutes=OFTEN, environment={"IMPRINT_COMMIT": f"sh {commit}"}
    )
    assert runner.finish(children) == [0, 0]
    log = (tmp_path / "log").read_text()
    saved = [f"step-{int(step):09d}.pt" for step in re.findall(r"state after step (\d+):", log)]
    assert saved and (tmp_path / "commits").read_text().split() == saved
    assert log.count("base: committed it, ") == len(saved)


@pytest.mark.parametrize(
    ("command", "problem"),
    [("sh -c 'echo full >&2; exit 3'", "exit status 3. full"), ("/no/such", "No such file")],
)
def test_a_commit_that_fails_is_a_warning(
    command: str, problem: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IMPRINT_COMMIT", command)
    commit("sft")
    [warning] = caplog.messages
    assert warning.startswith("sft: the state may not outlive this machine; training goes on. ")
    assert problem in warning


def workers(out: Path) -> list[int]:
    """Return the processes that train into ``out``, but not the torchrun that started them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(out).encode() in words and b"torch.distributed.run" not in words:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_processes_of_a_torchrun_that_ends_save_their_state_and_end_too(
    number: signal.Signals, tmp_path: Path
) -> None:
    torchrun = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", runner.__file__, str(tmp_path)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    while not runner.states(tmp_path).paths() and torchrun.poll() is None:
        time.sleep(0.01)
    assert len(workers(tmp_path)) == 2
    torchrun.send_signal(number)
    torchrun.wait(60)
    deadline = time.monotonic() + 30
    while workers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert workers(tmp_path) == []
    log = (tmp_path / "log").read_text()
    [last] = [line for line in log.splitlines() if "run again to go on" in line]
    newest = runner.states(tmp_path).newest()
    assert newest is not None and f"stopped after step {newest['step']};" in last


def test_a_damaged_state_is_passed_over_and_one_of_another_model_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Ramps("base", 4)
    whole, _ = runner.run(tmp_path / "whole", data)
    runner.run(tmp_path, data, minutes=1e-9)
    states = runner.states(tmp_path)
    [older, newer] = states.paths()
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, in the middle of the weights
    newer.write_bytes(content)
    model, outcome = runner.run(tmp_path, data)
    assert f"{newer}: damaged; going on from the state before it" in caplog.messages
    assert [line["step"] for line in outcome.lines] == [1, 2, 3, 4]
    assert outcome.tokens == 4 * runner.ROWS * runner.CONFIG.context
    assert all(map(torch.equal, model.parameters(), whole.parameters()))
    found = states.newest()
    assert found is not None and older.name == f"step-{found['step']:09d}.pt"
    found["weights"]["lm_head.weight"] = torch.zeros(320, 32)
    states.save(4, found)
    with pytest.raises(ArtifactError, match=r"step 3: .* lm_head.weight is 320 x 32.* 320 x 64"):
        runner.run(tmp_path, data)
