"""What a job asks for, in Modal's terms: GPUs, cores, memory, time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snakemake_interface_common.exceptions import WorkflowError

GPUS = {
    "T4": 8,
    "L4": 8,
    "A10": 4,
    "L40S": 8,
    "A100": 8,
    "A100-40GB": 8,
    "A100-80GB": 8,
    "RTX-PRO-6000": 8,
    "H100": 8,
    "H100!": 8,
    "H200": 8,
    "B200": 8,
    "B200+": 8,
}
"""Models, and how many of each one container can have (modal.com/docs/guide/gpu, May 2026)."""

CORES = 64
"""Most a container can ask for."""

MEMORY_MIB = (128, 344_064)
"""Least and most a container can ask for."""

DAY_S = 24 * 3600
"""Longest that Modal lets one attempt run."""

ATTEMPTS = 11
"""A first attempt and the ten retries that Modal grants."""

UNKNOWN = "<TBD>"
"""How Snakemake writes a resource that depends on a file that is still to be made."""


@dataclass(frozen=True)
class Hardware:
    """One container."""

    gpu: str
    """As Modal writes it, ``H100:8``; empty for none."""
    cpu: int
    """Physical cores."""
    memory_mib: int
    timeout_s: int
    """Of one attempt."""
    attempts: int = 1
    """More than one where the job may take longer than a day: it resumes in a new container."""

    @property
    def hours(self) -> float:
        """Longest that it can be used."""
        return self.timeout_s * self.attempts / 3600

    def __str__(self) -> str:
        if self.gpu:
            model, _, count = self.gpu.partition(":")
            return f"{count} x {model}"
        return f"{self.cpu} core" + "s" * (self.cpu > 1)


def asked(resources: Mapping[str, object], threads: int) -> Hardware:
    """Return the container that a job's ``resources`` and ``threads`` ask for.

    Without ``runtime`` a job may take a day. Resources that are not known yet count as not set.

    Raises:
        WorkflowError: Modal has no such container; the message says what to change.
    """
    known = {name: value for name, value in resources.items() if str(value) != UNKNOWN}
    minutes = _number(known, "runtime", DAY_S // 60)
    attempts = math.ceil(minutes * 60 / DAY_S)
    if not 1 <= attempts <= ATTEMPTS:
        raise WorkflowError(
            f"runtime is {minutes} minutes; Modal runs a job for 1 to {ATTEMPTS * DAY_S // 60}."
        )
    memory = max(MEMORY_MIB[0], _number(known, "mem_mib", MEMORY_MIB[0]))
    if memory > MEMORY_MIB[1]:
        raise WorkflowError(
            f"mem_mb is {_number(known, 'mem_mb', 0)}; a container on Modal has at most"
            f" {MEMORY_MIB[1] * 1024**2 // 10**6}."
        )
    if not 1 <= threads <= CORES:
        raise WorkflowError(f"threads is {threads}; a container on Modal has 1 to {CORES} cores.")
    return Hardware(
        gpu=_gpu(known),
        cpu=threads,
        memory_mib=memory,
        timeout_s=DAY_S if attempts > 1 else minutes * 60,
        attempts=attempts,
    )


def alternatives(gpu: str, fallbacks: Sequence[str]) -> list[str]:
    """Return ``gpu`` and what to take instead, in that order, all with the same number of GPUs.

    Of no GPU there is none instead.

    Raises:
        WorkflowError: A fallback is no GPU of Modal's, or there are not so many of it.
    """
    if not gpu:
        return [""]
    count = int(gpu.partition(":")[2])
    named = [named_gpu(model, count, "gpu_fallbacks") for model in fallbacks]
    return list(dict.fromkeys([gpu, *named]))


def named_gpu(model: str, count: int, where: str) -> str:
    """Return ``model`` and ``count`` as Modal writes them; ``where`` is named in the error.

    Raises:
        WorkflowError: There is no such model, or there are not so many of it.
    """
    name = model.upper()
    if name not in GPUS:
        raise WorkflowError(f"{where} is {model!r}; Modal has {', '.join(GPUS)}.")
    if not 1 <= count <= GPUS[name]:
        raise WorkflowError(f"gpu is {count}; a container on Modal has 1 to {GPUS[name]} {name}.")
    return f"{name}:{count}"


def family(gpu: str) -> str:
    """Return the part of a GPU's name that NVIDIA uses as well.

    Example:
        >>> [family(gpu) for gpu in ("A100-80GB:8", "H100!:1", "RTX-PRO-6000:2")]
        ['A100', 'H100', 'RTX']
    """
    return gpu.partition(":")[0].partition("-")[0].rstrip("!+")


def _gpu(resources: Mapping[str, object]) -> str:
    count = _number(resources, "gpu", 0)
    if count == 0:
        return ""
    if "gpu_model" not in resources:
        raise WorkflowError(
            f"gpu is {count}, but gpu_model is not set; Modal has {', '.join(GPUS)}."
        )
    return named_gpu(str(resources["gpu_model"]), count, "gpu_model")


def _number(resources: Mapping[str, object], name: str, default: int) -> int:
    value = resources.get(name, default)
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        hint = " Name the model in gpu_model." if name == "gpu" else ""
        raise WorkflowError(f"{name} is {value!r}; it must be a whole number.{hint}")
    return number
