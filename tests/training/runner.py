"""A small stage on made-up batches, in processes of its own that a test may kill.

A fork server that has loaded torch once starts a process in 20 ms instead of 3 s.
"""

import json
import multiprocessing
import os
import resource
import socket
import sys
import time
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint import checkpoint
from imprint.dataset.batch import Batch
from imprint.model import Model
from imprint.scale import Training
from imprint.script import following, reported
from imprint.settings import Watch
from imprint.shape import ModelConfig
from imprint.training.distributed import Ranks, joined
from imprint.training.loop import Outcome, prepare, train
from imprint.training.samples import Sampler
from imprint.training.states import States

CONFIG = ModelConfig(depth=1, vocabulary=320, context=32, head_width=32)
ROWS = 4


class Ramps:
    """Rows that count upwards from somewhere by some stride: every batch another loss."""

    def __init__(self, kind: str, steps: int, *, pause: float = 0.0) -> None:
        self.kind, self.steps, self.pause = kind, steps, pause

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        time.sleep(self.pause)
        dice = torch.Generator().manual_seed(step)
        start_B1 = torch.randint(0, 300, (ROWS, 1), generator=dice)
        stride = int(torch.randint(1, 4, (), generator=dice))
        all_BT = (start_B1 + stride * torch.arange(CONFIG.context + 1)) % 300
        spoken_BT = torch.rand(ROWS, CONFIG.context, generator=dice) < 0.5
        labels_BT, mine_BT = all_BT[rank::world, 1:], spoken_BT[rank::world]
        ids_BT = all_BT[rank::world, :-1].contiguous()
        if self.kind == "base":
            return Batch(ids_BT, None, labels_BT.flatten(), ids_BT.numel(), ids_BT.numel())
        where_N = mine_BT.flatten().nonzero().flatten()
        labels_N = labels_BT.flatten()[where_N]
        return Batch(ids_BT, where_N, labels_N, int(spoken_BT.sum()), all_BT[:, 1:].numel())


def settings(**values: Any) -> Training:
    rates = {"embedding_lr": 0.05, "head_lr": 0.01, "batch_tokens": ROWS * CONFIG.context}
    return Training(**{**rates, **values})


def states(out: Path) -> States:
    return States(out / "state" / "stage" / "key")


def run(
    out: Path,
    data: Ramps,
    *,
    ranks: Ranks | None = None,
    minutes: float = 15.0,
    watch: Watch | None = None,
    sampler: Sampler | None = None,
    **values: Any,
) -> tuple[Model, Outcome]:
    """Train here; results are in ``out``, the label is the kind of the data."""
    model = Model(CONFIG, seed=1)
    outcome = train(
        model,
        data,
        settings=settings(checkpoint_minutes=minutes, **values),
        ranks=ranks or Ranks(0, 1, torch.device("cpu")),
        label=data.kind,
        states=states(out),
        metrics=out / "metrics" / "stage.jsonl",
        watch=watch or Watch(),
        sampler=sampler,
    )
    return model, outcome


def stage(out: Path, data: Ramps, limit: int | None = None, **given: Any) -> None:
    """Train as one of the processes that the environment tells of; leave ``out``/stage.pt."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    log = (out / "log").open("a", encoding="utf-8")
    sys.stdout = sys.stderr = log
    torch.set_num_threads(1)
    with reported(), following(), joined() as ranks:
        prepare(ranks)
        model, outcome = run(out, data, ranks=ranks, **given)
        if ranks.first:
            told = {"tokenizer": "", "settings": {}, "seed": 1, "stage": data.kind}
            checkpoint.save(out / "stage.pt", model, step=outcome.steps, **told)  # type: ignore[arg-type]


def _child(environment: dict[str, str], out: Path, data: Ramps, given: Any) -> None:
    os.environ.update(environment)
    stage(out, data, **given)


def start(
    out: Path,
    data: Ramps,
    *,
    world: int = 1,
    environment: dict[str, str] | None = None,
    **given: Any,
) -> list[BaseProcess]:
    """Start ``stage`` in ``world`` processes."""
    out.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))  # where this module is found
        forkserver.ensure_running()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told |= environment or {}
    children: list[BaseProcess] = [
        context.Process(target=_child, args=({**told, "RANK": str(rank)}, out, data, given))
        for rank in range(world)
    ]
    for child in children:
        child.start()
    return children


def lines(out: Path, name: str = "stage") -> list[dict[str, Any]]:
    """Return the lines of a file of metrics."""
    return [
        json.loads(line) for line in (out / "metrics" / f"{name}.jsonl").read_text().splitlines()
    ]


def finish(children: list[BaseProcess]) -> list[int | None]:
    """Wait for the processes to end; return their exit codes."""
    for child in children:
        child.join(60)
    return [child.exitcode for child in children]


def after(out: Path, step: int, children: list[BaseProcess]) -> None:
    """Return when there is a state of ``step`` or later, or somebody has ended."""
    while all(child.is_alive() for child in children):
        if any(int(path.stem.removeprefix("step-")) >= step for path in states(out).paths()):
            return
        time.sleep(0.002)


def kill(children: list[BaseProcess]) -> None:
    """Kill all of them at once."""
    for child in children:
        child.kill()


def terminate(children: list[BaseProcess]) -> None:
    """Ask them to stop, again and again, until they do."""
    while any(child.is_alive() for child in children):
        for child in children:
            child.terminate()
        time.sleep(0.002)


if __name__ == "__main__":
    stage(Path(sys.argv[1]), Ramps("base", 100_000), minutes=0.1 / 60)
