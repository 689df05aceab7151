"""One line for a whole run: how far all its jobs are together, how fast, and what they spend."""

import logging
import time
from typing import TextIO

from imprint.generation.journal import Journal, Progress

logger = logging.getLogger("imprint")

TERMINAL_S, LOG_S = 0.5, 10.0
"""Time between two lines on a terminal, where each replaces the last, and in a log."""


class Live:
    """Shows the progress of a run: on a terminal by one of its workers, in a log by each."""

    def __init__(self, journal: Journal, *, budget_usd: float, terminal: TextIO | None) -> None:
        """Prepare to show.

        Args:
            journal: Where the workers report.
            budget_usd: Most that may be spent.
            terminal: Where the line goes that is drawn anew; None if nobody watches.
        """
        self.journal, self.budget_usd = journal, budget_usd
        self.terminal = terminal if terminal is not None and terminal.isatty() else None
        self.drawn = self.logged = time.monotonic()
        self.first = journal.progress()
        self.began = time.monotonic()

    def __call__(self) -> None:
        """Show how far the run is, if the last time is long enough ago."""
        now = time.monotonic()
        if now - self.logged < LOG_S and (not self.terminal or now - self.drawn < TERMINAL_S):
            return
        progress = self.journal.progress()
        if now - self.logged >= LOG_S:
            self.logged = now
            logger.info("%s", self.line(progress))
        if self.terminal and progress.leads:
            self.drawn = now
            # Back to the start of the line: whatever is written next begins there.
            self.terminal.write(f"\r\033[K{self.line(progress)}\r")
            self.terminal.flush()

    def end(self) -> None:
        """Show how far the run is for the last time."""
        logger.info("%s", self.line(self.journal.progress()))
        if self.terminal:
            self.terminal.write("\r\033[K")
            self.terminal.flush()

    def line(self, progress: Progress) -> str:
        """Return the line."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        rate = (progress.done - self.first.done) / seconds
        left = f"{(progress.total - progress.done) / rate:.0f} s left" if rate else "starting"
        money = progress.money
        return (
            f"conversations {progress.done}/{progress.total}, {rate:.1f}/s, "
            f"{money.flying} in flight, {progress.retried} retried, {progress.rejected} rejected, "
            f"${money.spent_usd - money.flying_usd:.4f} of ${self.budget_usd:.2f} spent, {left}"
        )
