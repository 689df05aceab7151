"""The training loop that base, mid and sft share."""

import ctypes
import logging
import math
import os
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imprint import checkpoint, hardware, records
from imprint.dataset.batch import Data
from imprint.dataset.loader import Loader
from imprint.errors import ArtifactError, StorageError
from imprint.model import Model
from imprint.progress import Progress
from imprint.scale import Training
from imprint.settings import Watch
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients, fitting
from imprint.training.guards import Guard, stoppable
from imprint.training.metrics import Figures, Record
from imprint.training.optim import Optimizers, schedule
from imprint.training.samples import Sampler, Samples
from imprint.training.states import Keeper, States
from imprint.training.watch import Writers

logger = logging.getLogger("imprint")


@dataclass
class Outcome:
    """What a stage came to, all its runs together."""

    steps: int
    tokens: int = 0
    """Real tokens trained on, all ranks together."""
    seconds: float = 0.0
    """Spent in the loop, samples and states included."""
    earlier: float = 0.0
    """Seconds of them that runs took that were interrupted."""
    lines: list[Figures] = field(default_factory=list)
    """Metrics: step, loss, lr, grad_norm, tokens_per_s, utilisation, memory_mb, data_wait,
    elapsed."""

    @property
    def tokens_per_s(self) -> float:
        """Speed over the whole stage."""
        return round(self.tokens / max(self.seconds, 1e-9), 1)


def number_type(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return what ``device`` calculates in: bfloat16 where it multiplies it in hardware.

    Args:
        device: Where the model is.
        precision: As in ``scale.Training``; float8 concerns the layers' products alone.
    """
    if precision == "float32":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_has("avx512_bf16", "amx_bf16", " bf16") else torch.float32


def _cpu_has(*names: str) -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(name in flags for name in names)


def prepare(ranks: Ranks, *, precision: str = "auto") -> None:
    """Set what torch should know before training: threads and precision; on CPUs, memory."""
    if ranks.device.type == "cuda":
        exact = precision == "float32"
        torch.set_float32_matmul_precision("highest" if exact else "high")  # high is TF32
    else:
        # medium is oneDNN: twice the speed, error still 6e-7. With AMX it would round to bfloat16.
        torch.set_float32_matmul_precision("highest" if _cpu_has("amx_bf16") else "medium")
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
    watch: Watch,
    sampler: Sampler | None = None,
) -> Outcome:
    """Train ``model`` in place on all batches of ``data``, from the newest state if there is one.

    Args:
        model: On the device of ``ranks``.
        data: Batches in a fixed order; every rank takes its share of each.
        settings: Rates, and the minutes between two saved states.
        ranks: The processes that train together.
        label: Name of the stage, for progress and messages.
        states: Where a killed run goes on.
        metrics: results/metrics/<stage>.jsonl, one JSON object a line; written with each state and
            at the end. Samples go to <stage>.samples.jsonl beside it, curves to
            results/tensorboard/<stage> and results/wandb.
        watch: Who sees how it goes, and when a leap of the loss stops it.
        sampler: Says what the model says; asked on the first rank.

    Raises:
        ImprintError: The loss or the gradient is no longer a number, the loss has leapt, or the
            GPU's memory is full.
        ConfigError: A package that ``watch`` wants is missing.
        ArtifactError: The newest state is of another model, or not all ranks see the same one.
        StorageError: The metrics cannot be written at the end.
        SystemExit: SIGTERM or SIGINT came; the state has been saved.
    """
    dtype = number_type(ranks.device, settings.precision)
    optimizers = Optimizers(model, settings, ranks=ranks, dtype=dtype)
    saved = states.newest() or {}
    begun, spent = saved.get("step", 0), saved.get("spent", 0.0)
    outcome = Outcome(data.steps, tokens=saved.get("tokens", 0), earlier=spent)
    seen = ranks.total(torch.tensor([float(begun)])).item()
    if seen != begun * ranks.world:
        raise ArtifactError(
            f"{states.folder}: the processes see different states. "
            "Put results/ on a disk that all of them share, and run again."
        )
    if saved:
        checkpoint.fill(model, saved["weights"], where=f"{states.folder}, step {begun}")
        optimizers.restore(saved["optimizers"])
        if ranks.first:
            logger.info("%s: goes on after step %d of %d", label, begun, data.steps)
    if ranks.first:
        logger.info("%s: trains on %s, processes: %d", label, ranks.device_name, ranks.world)
    record = Record(data.steps, **saved.get("record", {}))
    outcome.lines = record.lines
    guard = Guard(
        label,
        steps=data.steps,
        spike=watch.spike,
        warmup=round(settings.warmup * data.steps),
        kept=begun,
        recent=saved.get("recent", ()),
    )
    peak = hardware.peak_of(ranks.device)
    per_token = model.config.flops_per_token / (peak * ranks.world) if peak else None
    run = saved.get("run")
    del saved  # gigabytes
    writers = samples = None
    if ranks.first:
        about = {**settings.model_dump(), "model": model.config.plain(), "processes": ranks.world}
        folder = metrics.parent.parent
        writers = Writers(watch, folder=folder, label=label, begun=begun, run=run, about=about)
        if sampler and watch.sample_minutes:
            path = metrics.with_suffix(".samples.jsonl")
            minutes = watch.sample_minutes
            samples = Samples(sampler, minutes=minutes, path=path, label=label, begun=begun)
    keeper = Keeper(states, label=label, minutes=settings.checkpoint_minutes)
    started, done = time.monotonic(), begun

    def full() -> str:
        kept = next(reversed(states.paths()), "No state")  # as the disk tells every process
        return f"{label}: the GPU's memory is full at step {done} of {data.steps}. {kept} is kept."

    def keep(step: int) -> None:
        content: dict[str, Any] = {"optimizers": optimizers.state()}  # all ranks take part
        if writers is None:
            return
        if not (guard.calm and math.isfinite(largest(model))):
            logger.warning("%s: no state saved after step %d: its loss is odd", label, step)
            return
        writers.flush()
        content |= {
            "weights": {name: value.cpu() for name, value in model.state_dict().items()},
            "record": record.state(),
            "recent": list(guard.recent),
            "spent": spent + time.monotonic() - started,
            "tokens": outcome.tokens,
            "run": writers.run,
        }
        if keeper.save(step, content):
            guard.kept = step
            with suppress(StorageError, OSError):  # only for who looks at them meanwhile
                records.write_lines(metrics, record.lines)

    with (
        stoppable() as stop,
        writers or nullcontext(),
        fitting(full),
        Gradients(model, dtype=dtype, eight=settings.precision == "float8") as gradients,
        Loader(
            data, start=begun, rank=ranks.rank, world=ranks.world, device=ranks.device
        ) as batches,
        Progress(label, total=data.steps, unit="tokens", quiet=not ranks.first) as progress,
    ):
        progress.skip(begun)
        for done, batch in enumerate(batches, begun + 1):
            nats = gradients.backward(batch)
            due = ranks.first and guard.calm and keeper.due
            nats, stopped, due = ranks.total(
                torch.tensor([nats, float(stop.wanted), float(due)], dtype=torch.float64)
            ).tolist()
            loss = nats / batch.supervised
            guard.see(done - 1, loss)
            ends = record.ends(done)
            norm = optimizers.step(step=done - 1, steps=data.steps, norm=ends, each=gradients.each)
            if norm is not None:
                guard.number("gradient", done - 1, norm)
            outcome.tokens += batch.tokens
            record.add(loss=loss, tokens=batch.tokens)
            if ends:
                share = schedule(settings, step=done - 1, steps=data.steps)
                point = record.end(
                    done,
                    waited=batches.waited,
                    per_token=per_token,
                    lr=round(settings.matrix_lr * settings.rate * share, 8),
                    grad_norm=norm and round(norm, 5),
                    memory_mb=hardware.peak_memory_mb(ranks.device),
                    elapsed=round(spent + time.monotonic() - started, 3),
                )
                if writers:
                    writers.write(point)
            shown = {"loss": loss}
            if per_token and progress.amount:
                shown["utilisation"] = progress.recent * per_token
            progress.advance(amount=batch.tokens, **shown)
            if stopped or due:
                keep(done)
            if stopped:
                ranks.wait()  # torchrun would kill the first rank while it writes
                if ranks.first:
                    logger.info("%s: stopped after step %d; run again to go on", label, done)
                raise SystemExit(stop.status)
            if samples and samples.due:
                samples.take(model, done)
        guard.number("largest weight", data.steps - 1, largest(model))
        if samples:
            samples.take(model, data.steps)
    outcome.seconds = spent + time.monotonic() - started
    if ranks.first:
        records.write_lines(metrics, record.lines)
    return outcome


@torch.no_grad()
def evaluate(model: Model, data: Data, *, ranks: Ranks) -> float:
    """Return the mean loss over all supervised tokens of ``data``, in nats.

    Raises:
        ImprintError: The GPU's memory is full.
    """
    dtype = number_type(ranks.device)
    sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)  # read once, at the end
    with fitting(lambda: "The GPU's memory is full as the model is judged. Saved states are kept."):
        for step in range(data.steps):
            batch = data.batch(step, rank=ranks.rank, world=ranks.world).to(ranks.device)
            sums[0] += model.loss(
                batch.ids_BT,
                batch.where_N,
                batch.labels_N,
                documents_BT=batch.documents_BT,
                dtype=dtype,
            )
            sums[1] += len(batch.labels_N)
    nats, tokens = ranks.total(sums).tolist()
    return float(nats / tokens)


def largest(model: Model) -> float:
    """Return the largest weight, whatever its sign; no number if one of them is none."""
    sizes = [torch.linalg.vector_norm(weight, torch.inf) for weight in model.parameters()]
    return torch.stack(sizes).max().item()  # waits once for the device
