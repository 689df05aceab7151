"""What ends a run early: a signal, a loss that is no number, a loss that leaps and stays there."""

import math
import os
import signal
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from imprint.errors import ImprintError

RECENT = 50
"""Steps whose median loss is the usual one."""
PATIENCE = 5
"""Steps in a row that have to be far above it: one odd batch, or two, stop nothing."""


class Guard:
    """Looks at the loss of each step; all ranks see the same loss and so decide the same."""

    def __init__(
        self,
        label: str,
        *,
        steps: int,
        spike: float,
        warmup: int,
        kept: int = 0,
        recent: Iterable[float] = (),
    ) -> None:
        """Prepare to watch over a stage.

        Args:
            label: Name of the stage, for messages.
            steps: In all.
            spike: How far above the usual a loss has to be, in nats.
            warmup: Steps from the beginning that may leap.
            kept: Steps that the newest state has behind it; 0 if there is none.
            recent: Losses before now, from a state.
        """
        self.label, self.steps, self.spike, self.warmup = label, steps, spike, warmup
        self.kept = kept
        self.recent = deque(recent, maxlen=RECENT)
        """Losses of the last steps, but for those that leapt."""
        self.high = 0
        """Steps in a row that leapt."""

    @property
    def calm(self) -> bool:
        """Whether nothing has leapt just now: only then is a state worth keeping."""
        return self.high == 0

    def see(self, step: int, loss: float) -> None:
        """Take note of the ``loss`` of ``step`` (from 0), before the weights move.

        Raises:
            ImprintError: The loss is no number, or has leapt and stayed there.
        """
        self.number("loss", step, loss)
        usual = statistics.median(self.recent) if len(self.recent) == RECENT else math.inf
        if step < self.warmup or loss <= usual + self.spike:
            self.recent.append(loss)
            self.high = 0
            return
        self.high += 1
        if self.high == PATIENCE:
            raise ImprintError(
                f"{self.label}: the loss leapt to {loss:.3f} by step {step + 1} of {self.steps} "
                f"and stayed there for {PATIENCE} steps; before, its median was {usual:.3f}. "
                f"{self._kept} To go on from there whatever the loss does, raise watch.spike; "
                f"otherwise lower {self.label}.rate, which starts the stage anew, or look for odd "
                "rows in its data."
            )

    def number(self, name: str, step: int, value: float) -> None:
        """Check that ``value`` is finite.

        Raises:
            ImprintError: It is not; the message says at which ``step`` (from 0), and what to do.
        """
        if not math.isfinite(value):
            raise ImprintError(
                f"{self.label}: the {name} is {value} at step {step + 1} of {self.steps}. "
                f"{self._kept} Lower the learning rates of {self.label}, or look for odd rows "
                "in its data."
            )

    @property
    def _kept(self) -> str:
        return f"The state after step {self.kept} is kept." if self.kept else "No state was kept."


class Stop:
    """The signal that came; 0 for none."""

    def __init__(self) -> None:
        self.number = 0
        # killed for good, torchrun leaves its processes behind, which would hold the GPUs for days
        self.parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def wanted(self) -> bool:
        """Whether a signal came, or torchrun is gone."""
        return self.number > 0 or self.parent not in (None, os.getppid())

    @property
    def status(self) -> int:
        """Exit status after a stop, as a shell counts it."""
        return 128 + (self.number or signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn SIGTERM and SIGINT into a wish to stop, however often they come, inside the block."""
    stop = Stop()

    def wish(number: int, _: object) -> None:
        stop.number = number

    before = {number: signal.signal(number, wish) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
