"""What jobs would cost on machines rented from Modal: hours, from what is known, times the rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from imprint import artifacts, dial, hardware, recipe
from imprint.errors import ArtifactError
from imprint.forecast import Line
from imprint.settings import Settings
from imprint.workflow import Job
from snakemake_executor_plugin_modal import money
from snakemake_executor_plugin_modal.hardware import Hardware, asked

UTILISATION = 0.4
"""Share of a GPU's peak that a forecast counts on, where none was measured."""
TRAINING = ("base", "mid", "sft")


@dataclass(frozen=True)
class Rented:
    """A job, and what it would run on."""

    job: Job
    machine: Hardware
    usd_per_hour: float
    """Of the whole: GPUs, cores and memory."""

    @property
    def limit_usd(self) -> float:
        """The most that it can cost."""
        return self.usd_per_hour * self.machine.hours


def rented(jobs: Sequence[Job], rules: Sequence[str]) -> list[Rented]:
    """Return those of ``jobs`` that would run at Modal.

    Args:
        jobs: With their resources.
        rules: Those that run at Modal though they want no GPU; patterns.

    Raises:
        WorkflowError: Of Snakemake: a job wants what Modal has not.
    """
    found = []
    for job in jobs:
        machine = asked(job.resources, job.threads)
        if machine.gpu or any(fnmatch(job.stage, rule) for rule in rules):
            usd = money.rate(machine.gpu, machine.cpu, machine.memory_mib)
            found.append(Rented(job, machine, usd))
    return found


def priced(
    lines: Sequence[Line], jobs: Sequence[Rented], settings: Settings, *, root: Path = Path()
) -> list[Line]:
    """Return ``lines`` with where their jobs run, for how long and at what price.

    Args:
        lines: The forecast.
        jobs: Those at Modal.
        settings: Those of now.
        root: The project's folder.
    """
    found = []
    for line in lines:
        mine = [each for each in jobs if each.job.stage == line.stage]
        if mine:
            known = [seconds_of(each, settings, root) for each in mine]
            times = [
                3600 * each.machine.hours if seconds is None else seconds
                for each, seconds in zip(mine, known, strict=True)
            ]
            costs = [
                seconds / 3600 * each.usd_per_hour
                for each, seconds in zip(mine, times, strict=True)
            ]
            line = replace(
                line,
                machine=str(mine[0].machine),
                seconds=sum(times),
                cost_usd=sum(costs),
                most=None in known,
            )
        found.append(line)
    return found


def seconds_of(rented: Rented, settings: Settings, root: Path) -> float | None:
    """Return how long a job should take; None if nobody can know.

    Training is as many operations as follow from the settings, at the speed of the last run on such
    GPUs, or else at `UTILISATION` of their peak. Other stages take what they took the last time,
    if they had the same to do.
    """
    results, stage = root / "results", rented.job.stage
    if stage not in TRAINING:
        return _again(rented.job, settings, results)
    model, _, count = rented.machine.gpu.partition(":")
    peak, tokens = hardware.peak_flops(model), training_tokens(stage, settings, results)
    if peak is None or tokens is None:
        return None
    speed, last = UTILISATION * peak * int(count), _manifest(results / f"{stage}.json")
    same = hardware.peak_flops(str(last.get("device"))) == peak
    if same and last.get("processes") == int(count):
        speed = last["tokens_per_s"] * last["flops_per_token"]
    return dial.shape(settings.model).flops_per_token * tokens / speed


def training_tokens(stage: str, settings: Settings, results: Path) -> int | None:
    """Return how many tokens ``stage`` would train on; None before its data has been cut so far.

    For mid and sft every conversation of the identity counts as often as it is seen at least, and
    all of the chat; where less is mixed in, this is too much.
    """
    if stage == "base":
        return None if settings.base.start else settings.base.tokens
    tuning = settings.mid if stage == "mid" else settings.sft
    total = 0.0
    for name, store in recipe.stores(stage, settings).items():
        made = _manifest(results / "tokens" / f"{store}.manifest.json")
        if not made or not _like(made, recipe.chats(store, settings) if name == "chat" else {}):
            return None
        epochs = 1.0
        if name == "identity":
            index = artifacts.read_json(results / "tokens" / f"{store}.json")
            rows = index["parts"]["train"]["documents"]
            epochs = max(tuning.identity_epochs, tuning.identity_least / max(1, rows))
        total += epochs * made["tokens"]["train"]
    return round(total)


def _again(job: Job, settings: Settings, results: Path) -> float | None:
    """Return how long ``job``, which trains nothing, took when it had the same to do."""
    store = job.wildcards.get("store")
    text = _manifest(results / "corpus" / "manifest.json")
    same = _like(text, recipe.settings("corpus", settings))
    if job.stage == "tokens" and store != "corpus":
        last = _manifest(results / "tokens" / f"{store}.manifest.json")
        wanted = recipe.chats(store, settings) if store in TRAINING else {}
        same = _like(last, wanted)
    elif job.stage == "tokens":
        last = _manifest(results / "tokens" / "corpus.manifest.json")
    elif job.stage == "corpus":
        last = text
    elif job.stage == "tokenizer":
        last = _manifest(results / "tokenizer" / "manifest.json")
        same = same and _like(last, recipe.settings("tokenizer", settings))
    else:
        return None
    return float(last["seconds"]) if same and "seconds" in last else None


def _like(manifest: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether ``manifest`` is of a run with the settings ``wanted``, whatever its seed."""
    had = manifest.get("settings", {})
    return bool(manifest) and all(
        had.get(key) == value for key, value in wanted.items() if key != "seed"
    )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = artifacts.read_json(path)
    except ArtifactError:
        return {}
    return found if isinstance(found, dict) else {}
