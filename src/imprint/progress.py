"""How far a long piece of work has come: a bar on a terminal, plain lines in a log."""

import logging
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from imprint.page import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

logger = logging.getLogger("imprint")

EVERY_S = 2.0
"""Seconds between two lines in a log; 60 in the end, so that a day of work is not 43,000 lines."""
SLOWER_S = 300.0
"""Seconds after which lines begin to come less often."""
RECENT_S = 60.0
"""Seconds whose speed is shown, and tells the time left."""


class Progress:
    """Shows rate and time left while a ``with`` block runs.

    Example:
        >>> with Progress("sft", total=3, unit="tokens") as progress:
        ...     for step in range(3):
        ...         progress.advance(amount=4096, loss=2.5)
    """

    def __init__(
        self, label: str, *, total: int, unit: str, percent: bool = False, quiet: bool = False
    ) -> None:
        """Prepare to show ``total`` steps.

        Args:
            label: What is being done.
            total: Steps in all.
            unit: What a step works off, for the rate: tokens, rows.
            percent: Show steps as percent, where they mean nothing to a person.
            quiet: Show nothing: for every process but the first.
        """
        self.label, self.total, self.unit = label, total, unit
        self.percent, self.quiet = percent, quiet
        self.done = 0
        self.first = 0
        self.amount = 0
        self.started = self.shown = time.monotonic()
        self.marks: deque[tuple[float, int, int]] = deque()
        """Time, steps and amount at moments of the last minute, a second apart at least."""
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
                TextColumn("{task.fields[count]} {task.fields[detail]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self.task = self.bar.add_task(self.label, total=self.total, count=self.count, detail="")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()
        elif self.shown > self.started or self.done == self.total:
            self._line("", self.rate)

    def skip(self, steps: int) -> None:
        """Count ``steps`` as done before this process began."""
        self.done = self.first = steps

    @property
    def count(self) -> str:
        """How far it is, for people."""
        if self.percent:
            return f"{100 * self.done // max(self.total, 1)} %"
        return f"{self.done}/{self.total}"

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.amount / max(time.monotonic() - self.started, 1e-9)

    @property
    def recent(self) -> float:
        """Units a second over the last minute."""
        began, _, amount = self._mark
        return (self.amount - amount) / max(time.monotonic() - began, 1e-9)

    @property
    def left_s(self) -> float:
        """Seconds left, at the speed of the last minute."""
        began, done, _ = self._mark
        return (time.monotonic() - began) / max(self.done - done, 1) * (self.total - self.done)

    @property
    def _mark(self) -> tuple[float, int, int]:
        return self.marks[0] if self.marks else (self.started, self.first, 0)

    def advance(self, *, amount: int, **values: float) -> None:
        """Count one more step, which worked off ``amount`` units; show ``values`` beside it."""
        now = time.monotonic()
        self.done += 1
        self.amount += amount
        self._remember(now)
        if self.quiet:
            return
        slower = min(max((now - self.started) / SLOWER_S, 1.0), 30.0)
        if self.bar is None and now - self.shown < EVERY_S * slower:
            return
        detail = "".join(f" {name} {value:.4g}" for name, value in values.items())
        if self.bar is not None and self.task is not None:
            shown: dict[str, Any] = {"detail": f"{detail.strip()} {self.recent:,.0f} {self.unit}/s"}
            self.bar.update(self.task, completed=self.done, count=self.count, **shown)
        else:
            self.shown = now
            self._line(detail, self.recent)

    def _remember(self, now: float) -> None:
        if not self.marks:
            self.marks.append((self.started, self.first, 0))
        if now - self.marks[-1][0] >= RECENT_S / 60:
            self.marks.append((now, self.done, self.amount))
        while len(self.marks) > 1 and now - self.marks[1][0] >= RECENT_S:
            self.marks.popleft()

    def _line(self, detail: str, rate: float) -> None:
        if not self.quiet:
            left = f", {duration(self.left_s)} left" if self.done < self.total else ""
            speed = f"{rate:,.0f} {self.unit}/s"
            logger.info("%s %s%s, %s%s", self.label, self.count, detail, speed, left)
