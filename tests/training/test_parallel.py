"""Several processes train as one; started by torchrun, this file is one of them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint.dataset.batch import Batch
from imprint.errors import ConfigError
from imprint.model import Model, ModelConfig
from imprint.scale import Training
from imprint.training import optim
from imprint.training.distributed import joined
from imprint.training.gradients import Gradients
from imprint.training.optim import Optimizers

CONFIG = ModelConfig(depth=1, vocabulary=301, context=24)
"""Neither 301 rows nor its stacks of four and two matrices divide by the processes."""
ROWS, STEPS, HALF = 7, 50, 25


def batch(step: int, rank: int, world: int) -> Batch:
    generator = torch.Generator().manual_seed(step % 5)
    tokens = torch.randint(0, 301, (ROWS, 25), generator=generator)[rank::world]
    return Batch(tokens[:, :-1], None, tokens[:, 1:].flatten(), ROWS * 24, ROWS * 24)


def trained(steps: range, saved: dict[str, Any] | None = None) -> dict[str, Any]:
    """Losses of ``steps``, what is needed to go on, and how many matrices Muon turned in the last
    step, all processes together; each process calls this."""
    model = Model(CONFIG, seed=1)
    settings = Training(embedding_lr=0.05, head_lr=0.004, momentum=0.9, gradient_clip=1.0)
    losses, turned = [], list[int]()
    honest = optim.orthogonal

    def counted(stack: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        turned.append(int(stack.any(dim=(1, 2)).sum()))  # but for filler
        return honest(stack, dtype=dtype)

    with joined() as ranks, Gradients(model, dtype=torch.float32) as gradients:
        optimizers = Optimizers(model, settings, ranks=ranks, dtype=torch.float32)
        if saved:
            model.load_state_dict(saved["weights"])
            optimizers.restore(saved["state"])
        for step in steps:
            here = batch(step, ranks.rank, ranks.world)
            nats = ranks.total(torch.tensor(gradients.backward(here), dtype=torch.float64))
            losses.append(nats.item() / here.supervised)
            turned.clear()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(optim, "orthogonal", counted)
                optimizers.step(step=step, steps=STEPS, each=gradients.each)
        return {
            "losses": losses,
            "weights": model.state_dict(),
            "state": optimizers.state(),
            "turned": ranks.total(torch.tensor(float(sum(turned)))).item(),
        }


def launched(processes: int, steps: range, out: Path) -> subprocess.Popen[bytes]:
    run = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    given = [__file__, str(out), str(steps.start), str(steps.stop)]
    return subprocess.Popen(
        [sys.executable, *run, *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )


def test_two_and_three_processes_train_as_one_and_take_over_from_each_other(
    tmp_path: Path,
) -> None:
    children = {
        2: launched(2, range(STEPS), tmp_path / "2.pt"),
        3: launched(3, range(HALF), tmp_path / "3.pt"),
    }
    alone = trained(range(STEPS))
    assert alone["losses"][0] == pytest.approx(5.707, abs=0.001)  # ln 301
    assert alone["losses"][-1] < 5.2
    found = {}
    for processes, child in children.items():
        _, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors.decode()
        found[processes] = torch.load(tmp_path / f"{processes}.pt")
    assert found[2]["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert found[3]["losses"] == pytest.approx(alone["losses"][:HALF], abs=1e-5)
    matrices = len(list(Model(CONFIG, seed=1).matrices()))
    assert [run["turned"] for run in (alone, found[2], found[3])] == [matrices] * 3
    later = trained(range(HALF, STEPS), found[3])
    assert later["losses"] == pytest.approx(alone["losses"][HALF:], abs=1e-5)
    torch.testing.assert_close(found[2]["state"], alone["state"], atol=1e-4, rtol=1e-3)


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with (
        pytest.raises(ConfigError, match=r"^gpu: process 3 .* there are 2\. Lower gpu in set-res"),
        joined(),
    ):
        pass


if __name__ == "__main__":
    result = trained(range(int(sys.argv[2]), int(sys.argv[3])))
    if os.environ["RANK"] == "0":
        torch.save(result, sys.argv[1])
