"""What only a GPU can show: compiled layers, flash and block-masked attention, float8."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imprint.dataset.batch import Batch
from imprint.model import Model, ModelConfig
from imprint.scale import Training
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.loop import prepare
from imprint.training.optim import Optimizers
from reference import lively

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # of compilers
]

ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(depth=2, vocabulary=512, context=256)


def batch(kind: str, rows: int = 6) -> Batch:
    dice = torch.Generator().manual_seed(3)
    tokens = torch.randint(0, 512, (rows, 257), generator=dice)
    given = Batch(tokens[:, :-1], None, tokens[:, 1:].flatten(), rows * 256, rows * 256)
    if kind == "documents":
        return given
    where_N = torch.arange(5, rows * 256, 3)
    given = replace(given, where_N=where_N, labels_N=given.labels_N[where_N])
    ends = torch.tensor([[40 + 20 * row] for row in range(rows)])
    return replace(given, documents_BT=(torch.arange(256) // ends).int())


@pytest.mark.parametrize("kind", ["documents", "packed"])
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 1e-3), (torch.bfloat16, 0.05)])
def test_loss_and_gradients_are_those_of_a_cpu(kind: str, dtype: torch.dtype, gap: float) -> None:
    found = []
    for device in ("cpu", "cuda"):
        model = lively(CONFIG, std=0.1).to(device)
        prepare(Ranks(0, 1, torch.device(device)), precision="float32")
        with Gradients(model, dtype=torch.float32 if device == "cpu" else dtype) as work:
            nats = work.backward(batch(kind))
        found.append((nats, [weight.grad.float().cpu() for weight in model.parameters()]))  # type: ignore[union-attr]
    (expected, wanted), (nats, grads) = found
    assert nats == pytest.approx(expected, rel=gap)
    for grad, want in zip(grads, wanted, strict=True):
        assert torch.linalg.vector_norm(grad - want) < gap * torch.linalg.vector_norm(want)


@pytest.mark.parametrize("eight", [False, True])
def test_a_batch_is_learned_by_heart(eight: bool) -> None:
    model, device = Model(CONFIG, seed=1).to("cuda"), torch.device("cuda")
    settings = Training(embedding_lr=0.2, head_lr=0.02)
    optimizers = Optimizers(model, settings, ranks=Ranks(0, 1, device), dtype=torch.bfloat16)
    given = batch("packed", rows=2)
    with Gradients(model, dtype=torch.bfloat16, eight=eight) as work:
        for step in range(100):
            nats = work.backward(given)
            optimizers.step(step=step, steps=100, each=work.each)
    assert nats / given.supervised < 0.1


def test_the_benchmark_runs_to_its_end() -> None:
    small = ("--depth=4", "--vocabulary=4096", "--context=512", "--steps=6")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *small, "--refresh-tokens=100000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["of_ceiling"] > 0.02 and figures["data_wait"] < 0.5
