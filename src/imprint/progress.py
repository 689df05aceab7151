"""How far a long piece of work has come: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

logger = logging.getLogger("imprint")

EVERY_S = 2.0
"""Seconds between two lines in a log."""


class Progress:
    """Shows rate and time left while a ``with`` block runs.

    Example:
        >>> with Progress("sft", total=3, unit="tokens") as progress:
        ...     for step in range(3):
        ...         progress.advance(amount=4096, loss=2.5)
    """

    def __init__(self, label: str, *, total: int, unit: str, quiet: bool = False) -> None:
        """Prepare to show ``total`` steps.

        Args:
            label: What is being done.
            total: Steps in all.
            unit: What a step works off, for the rate: tokens, rows.
            quiet: Show nothing: for every process but the first.
        """
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.done = 0
        self.first = 0
        self.amount = 0
        self.started = self.shown = time.monotonic()
        self.bar: Bar | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> "Progress":
        self.started = self.shown = time.monotonic()
        if sys.stderr.isatty() and not self.quiet:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[detail]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(self.label, total=self.total, detail="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        elif self.shown > self.started or self.done == self.total:
            self._line("")

    def skip(self, steps: int) -> None:
        """Count ``steps`` as done before this process began."""
        self.done = self.first = steps

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.amount / max(time.monotonic() - self.started, 1e-9)

    @property
    def left_s(self) -> float:
        """Seconds left, at the speed so far."""
        steps = max(self.done - self.first, 1)
        return (time.monotonic() - self.started) / steps * (self.total - self.done)

    def advance(self, *, amount: int, **values: float) -> None:
        """Count one more step, which worked off ``amount`` units; show ``values`` beside it."""
        self.done += 1
        self.amount += amount
        if self.quiet:
            return
        now = time.monotonic()
        if self.bar is None and now - self.shown < EVERY_S:
            return
        detail = "".join(f" {name} {value:.4g}" for name, value in values.items())
        if self.bar is not None and self.task is not None:
            shown: dict[str, Any] = {"detail": f"{detail.strip()} {self.rate:,.0f} {self.unit}/s"}
            self.bar.update(self.task, completed=self.done, **shown)
        else:
            self.shown = now
            self._line(detail)

    def _line(self, detail: str) -> None:
        if not self.quiet:
            logger.info(
                "%s %d/%d%s, %s %s/s, %.0f s left",
                *(self.label, self.done, self.total, detail),
                *(f"{self.rate:,.0f}", self.unit, self.left_s),
            )
