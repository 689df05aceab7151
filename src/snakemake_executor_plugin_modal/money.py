"""What a job costs: rates, a limit for a run, and a receipt for each call.

The rates are Modal's list prices. ``Workspace.billing.rates()`` of modal 1.6 tells a workspace's
own, but neither names nor units of what it answers are documented: it is not asked.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from snakemake_interface_common.exceptions import WorkflowError

from .hardware import Hardware

RATES_DATE = "2026-05"
"""When the rates were read from modal.com/pricing."""

RATES = {
    "T4": 0.59,
    "L4": 0.80,
    "A10": 1.10,
    "L40S": 1.95,
    "A100": 2.50,
    "A100-40GB": 2.10,
    "A100-80GB": 2.50,
    "RTX-PRO-6000": 3.03,
    "H100": 3.95,
    "H100!": 3.95,
    "H200": 4.54,
    "B200": 6.25,
    "B200+": 6.25,
}
"""USD for an hour of one GPU. A100 may be given with 80 GB, B200+ as something newer."""

CORE = 0.0000131 * 3600
"""USD for an hour of one physical core."""

GIB = 0.00000222 * 3600
"""USD for an hour of one GiB of memory."""

BROAD, NARROW = 1.5, 1.75
"""By which all is dearer in a region that was chosen: ``us``, or ``us-east``
(modal.com/docs/guide/region-selection)."""


def rate(gpu: str, cpu: float, memory_mib: float) -> float:
    """Return USD per hour of a container.

    Args:
        gpu: Model and number as Modal writes them, ``H100:8``; empty for none.
        cpu: Physical cores.
        memory_mib: Memory, in MiB.

    Raises:
        KeyError: There is no rate for this GPU.

    Example:
        >>> round(rate("H100:8", cpu=16, memory_mib=131072), 2)
        33.38
    """
    model, _, count = gpu.partition(":")
    gpus = RATES[model] * int(count or 1) if model else 0.0
    return gpus + CORE * cpu + GIB * memory_mib / 1024


def dearest(hardware: Hardware, gpus: Iterable[str], region: Sequence[str]) -> float:
    """Return USD per hour of ``hardware`` with the most expensive of ``gpus``.

    Args:
        hardware: The container.
        gpus: Alternatives, as in ``rate``.
        region: Regions it may run in; none for any, which is cheapest.
    """
    rates = [rate(gpu, hardware.cpu, hardware.memory_mib) for gpu in gpus]
    return max(rates) * max([NARROW if "-" in name else BROAD for name in region], default=1.0)


def dollars(usd: float) -> str:
    """Return an amount as people say it: ``about $12.30``, ``under a cent``."""
    return f"about ${usd:.2f}" if usd >= 0.01 else "under a cent"


@dataclass
class Budget:
    """What a run may cost, and what it has cost or may still cost."""

    limit: float | None
    """USD; None for no limit."""
    spent: float = 0.0
    running: dict[str, float] = field(default_factory=dict)
    """The most that each running job can cost, in USD."""

    def check(self, most: Iterable[tuple[str, float]]) -> None:
        """Refuse a run whose jobs could cost more than the limit.

        Args:
            most: For each job its rule, and the most it can cost in USD.

        Raises:
            WorkflowError: They could; the message tells the figure of each rule.
        """
        if self.limit is None:
            return
        if not self.limit > 0:
            raise WorkflowError(f"modal-max-usd is {self.limit}; it must be above 0.")
        rules: dict[str, list[float]] = {}
        for rule, usd in most:
            rules.setdefault(rule, []).append(usd)
        total = sum(map(sum, rules.values()))
        if total > self.limit:
            told = "\n".join(
                f"  {rule}: {len(each)} x up to ${max(each):.2f}" for rule, each in rules.items()
            )
            raise WorkflowError(
                f"What is to run on Modal could cost ${total:.2f}; modal-max-usd is"
                f" ${self.limit:.2f}.\n{told}\nA job counts as its runtime x the rates of"
                f" {RATES_DATE}: lower runtime where it is more than the job needs, or raise"
                " modal-max-usd."
            )

    def reserve(self, job: str, most: float) -> None:
        """Set ``most`` USD aside for ``job``.

        Raises:
            WorkflowError: With what is spent and set aside, that is more than the limit.
        """
        promised = self.spent + sum(self.running.values())
        if self.limit is not None and promised + most > self.limit:
            raise WorkflowError(
                f"This job could cost ${most:.2f}; with ${promised:.2f} spent or set aside in this"
                f" run that is more than modal-max-usd, ${self.limit:.2f}. Not started."
            )
        self.running[job] = most

    def settle(self, job: str, usd: float) -> None:
        """Replace what was set aside for ``job`` by what it has cost."""
        self.running.pop(job, None)
        self.spent += usd


@dataclass
class Receipt:
    """What one call has cost."""

    rule: str
    outputs: list[str]
    call: str
    gpu: str
    cpu: int
    memory_mib: int
    seconds: float
    """From its first start to its end."""
    usd: float
    """Seconds x rate."""
    status: str
    """``done``, ``failed`` or ``cancelled``."""
    billed_usd: float | None = None
    """What Modal's billing says the app has cost since the call's start, if it says it: it counts
    full hours only, and is minutes late."""
    rates: str = RATES_DATE
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def keep(receipt: Receipt, folder: Path) -> None:
    """Append ``receipt`` to ``receipts.jsonl`` in ``folder``, in one write."""
    with (folder / "receipts.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(receipt)) + "\n")


class Bill:
    """What Modal's billing says, where the workspace's plan lets one ask."""

    PATIENCE_S = 2.0

    def __init__(self) -> None:
        """Ask nothing yet."""
        self._refused = False

    async def since(self, app: str, start: datetime) -> float | None:
        """Return the USD of the apps whose names begin with ``app``; None if that is not told."""
        import modal

        if self._refused:
            return None
        billing = modal.Workspace.from_context().billing
        try:
            asking = billing.report.aio(start=start, resolution="h")
            items = await asyncio.wait_for(asking, self.PATIENCE_S)
        except Exception:  # a figure that is nice to have must not fail a job
            self._refused = True
            return None
        costs = [float(item.cost) for item in items if item.description.startswith(app)]
        return round(sum(costs), 6) if costs else None
