"""The training loop that base, mid and sft share."""

import ctypes
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from imprint import records
from imprint.checkpoint import States
from imprint.dataset.batch import Data
from imprint.errors import ImprintError
from imprint.model import Model
from imprint.progress import Progress
from imprint.settings import Training
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.optim import AdamW, Muon, schedule

logger = logging.getLogger("imprint")

LINES = 200
"""Lines of metrics, at most about this many a stage."""


@dataclass
class Outcome:
    """What a training run came to."""

    steps: int
    tokens: int = 0
    """Real tokens trained on by this process's run, all ranks together, resumed part excluded."""
    seconds: float = 0.0
    lines: list[dict[str, float]] = field(default_factory=list)
    """Metrics: step, loss, lr, tokens_per_s, grad_norm, elapsed."""

    @property
    def tokens_per_s(self) -> float:
        """Speed of this run."""
        return round(self.tokens / max(self.seconds, 1e-9), 1)


def number_type(device: torch.device) -> torch.dtype:
    """Return bfloat16 where ``device`` multiplies it in hardware, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(name in flags for name in ("avx512_bf16", "amx_bf16", " bf16"))


def prepare(ranks: Ranks) -> None:
    """Set what torch should know before training: threads, precision, determinism."""
    if ranks.device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or its sums vary
        torch.set_float32_matmul_precision("high")
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        torch.set_float32_matmul_precision("medium")  # oneDNN: twice the speed, error still 6e-7
        _keep_memory()
        if ranks.world > 1:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks.world))


def _keep_memory() -> None:
    """Tell the C library to keep freed memory: to ask for it anew costs 71 instead of 63 ms a step.

    Each step makes and drops tensors of some megabytes, which glibc gives back to the system at
    once, so that the next step meets every page for the first time. Elsewhere this does nothing.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # numbers of malloc.h
        library.mallopt(mmap_threshold, 32 << 20)
        library.mallopt(trim_threshold, 1 << 30)
        library.mallopt(top_pad, 64 << 20)


def train(
    model: Model,
    data: Data,
    *,
    settings: Training,
    ranks: Ranks,
    label: str,
    states: States,
    metrics: Path,
) -> Outcome:
    """Train ``model`` in place on all batches of ``data``, from the newest state if there is one.

    Args:
        model: On the device of ``ranks``.
        data: Batches in a fixed order; every rank takes its share of each.
        settings: Rates, and the minutes between two saved states.
        ranks: The processes that train together.
        label: Name of the stage, for progress and messages.
        states: Where a killed run goes on.
        metrics: File of metrics, one JSON object a line; written with each state and at the end.

    Raises:
        ImprintError: The loss is no longer a number.
        SystemExit: SIGTERM or SIGINT came; the state has been saved.
    """
    dtype = number_type(ranks.device)
    muon = Muon(
        model.matrices(),
        lr=settings.matrix_lr,
        weight_decay=settings.weight_decay,
        dtype=dtype,
    )
    adamw = AdamW(
        [
            (model.embedding, settings.embedding_lr),
            (model.lm_head.weight, settings.head_lr),
        ]
    )
    outcome = Outcome(steps=data.steps)
    begun, spent = 0, 0.0
    saved = states.newest()
    if saved is not None:
        model.load_state_dict(saved["weights"])
        muon.restore(saved["muon"])
        adamw.restore(saved["adamw"])
        begun, spent, outcome.lines = saved["step"], saved["spent"], saved["lines"]
        logger.info("%s: goes on after step %d of %d", label, begun, data.steps)
    weights = list(model.parameters())
    every = max(1, data.steps // LINES)
    losses: list[float] = []
    started = kept = time.monotonic()

    def keep(step: int) -> None:
        if ranks.first and all(bool(weight.isfinite().all()) for weight in weights):
            content = {
                "weights": {name: value.cpu() for name, value in model.state_dict().items()},
                "muon": muon.state(),
                "adamw": adamw.state(),
                "step": step,
                "spent": spent + time.monotonic() - started,
                "lines": outcome.lines,
            }
            states.save(step, content)
            records.write_lines(metrics, outcome.lines)
        ranks.wait()

    with (
        stoppable() as stop,
        Gradients(model, dtype=dtype) as gradients,
        Progress(label, total=data.steps, unit="tokens", quiet=not ranks.first) as progress,
    ):
        progress.skip(begun)
        for step in range(begun, data.steps):
            batch = data.batch(step, rank=ranks.rank, world=ranks.world)
            nats = gradients.backward(batch)
            for weight in weights:
                ranks.total(weight.grad)  # type: ignore[arg-type]
            due = ranks.first and time.monotonic() - kept > settings.checkpoint_minutes * 60
            nats, stopped, due = ranks.total(
                torch.tensor([nats, float(stop.number > 0), float(due)])
            ).tolist()
            loss = nats / batch.supervised
            if not math.isfinite(loss):
                raise ImprintError(
                    f"{label}: the loss is {loss} at step {step + 1} of {data.steps}. "
                    f"Lower the learning rates of {label}, or look for odd rows in its data."
                )
            share = schedule(settings, step=step, steps=data.steps)
            losses.append(loss)
            if (step + 1) % every == 0 or step + 1 == data.steps:
                outcome.lines.append(
                    {
                        "step": step + 1,
                        "loss": round(sum(losses) / len(losses), 5),
                        "lr": round(settings.matrix_lr * share, 8),
                        "tokens_per_s": round(progress.rate, 1),
                        "grad_norm": round(norm(weights), 5),
                        "elapsed": round(spent + time.monotonic() - started, 3),
                    }
                )
                losses.clear()
            muon.step(share, each=gradients.each)
            adamw.step(share)
            outcome.tokens += batch.tokens
            progress.advance(amount=batch.tokens, loss=loss)
            if stopped or due:
                keep(step + 1)
                kept = time.monotonic()
            if stopped:
                logger.info("%s: stopped after step %d; run again to go on", label, step + 1)
                raise SystemExit(128 + (stop.number or signal.SIGTERM))
    outcome.seconds = time.monotonic() - started
    if ranks.first:
        records.write_lines(metrics, outcome.lines)
    return outcome


@torch.no_grad()
def evaluate(model: Model, data: Data, *, ranks: Ranks) -> float:
    """Return the mean loss over all supervised tokens of ``data``, in nats."""
    dtype = number_type(ranks.device)
    sums = torch.zeros(2, dtype=torch.float64)
    for step in range(data.steps):
        batch = data.batch(step, rank=ranks.rank, world=ranks.world).to(ranks.device)
        nats = model.loss(batch.ids_BT, batch.where_N, batch.labels_N, dtype=dtype)
        sums += torch.tensor([float(nats), len(batch.labels_N)])
    nats, tokens = ranks.total(sums).tolist()
    return float(nats / tokens)


def norm(weights: list[torch.nn.Parameter]) -> float:
    """Return the length of the whole gradient."""
    return math.sqrt(
        sum(float(weight.grad.square().sum()) for weight in weights if weight.grad is not None)
    )


@dataclass
class Stop:
    """The signal that came; 0 for none."""

    number: int = 0


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a wish to stop, for the length of the block."""
    stop = Stop()

    def wish(number: int, _: object) -> None:
        stop.number = number

    before = {number: signal.signal(number, wish) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
