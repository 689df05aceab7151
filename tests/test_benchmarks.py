"""The benchmarks of GPUs, as far as a CPU can tell, and of the loader run to their end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_two_processes_measure_the_training_loop_together() -> None:
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    small = ("--device=cpu", "--depth=2", "--vocabulary=512", "--context=128", "--steps=3")
    last = run(*torchrun, "-m", "benchmarks.gpu", *small, "--refresh-tokens=20000")
    figures = json.loads(last)
    parts = [figures[f"refresh_{part}_s"] for part in ("load", "train", "save")]
    assert abs(sum(parts) - figures["refresh_s"]) < 0.05
    assert figures["processes"] == 2
    assert figures["parameters"] == 2 * 512 * 128 + 2 * 12 * 128**2
    assert figures["batch_tokens"] == 16_384, "derived from the depth by the scale's own rules"
    assert figures["tokens_at_once"] in (8192, 4096), "a process's share, or half of it"
    assert 0 < figures["of_ceiling"] < 1.5 and figures["of_data_sheet"] is None
    assert figures["loader_tokens_per_s"] > figures["tokens_per_s"] > 0
    assert 0 <= figures["data_wait"] < 1


def test_the_loader_is_measured_against_training() -> None:
    small = ("--rounds=1", "--characters=60000", "--conversations=300")
    figures = json.loads(run("benchmarks.loader", *small))
    kinds = ("documents", "chats", "packed")
    slowest = min(figures[f"{kind}_tokens_per_s"] for kind in kinds)
    assert figures["ratio"] == pytest.approx(slowest / figures["training_tokens_per_s"], abs=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so() -> None:
    assert run("benchmarks.gpu").startswith("No CUDA device here")
