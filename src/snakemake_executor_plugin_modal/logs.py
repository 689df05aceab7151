"""A call's log: shown as it comes, and complete in a file at the end."""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .image import MARK
from .text import say, span, write

if TYPE_CHECKING:
    import modal
    from modal.types import LogEntry

TAIL = 20
"""Lines of a failed job's log that its error repeats."""

SKEW = timedelta(minutes=10)
"""By which the clocks of a container and of this machine may differ."""

LATE_S = (0.0, 0.2, 0.5, 1.0, 3.0, 6.0)
"""Pauses in which the last lines of a job that has ended may still arrive."""

SAID_AFTER_S = (60, 120, 300, 600)
"""When it is said again that a job waits for capacity; then as often as the last."""

STATUS = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.(SIG\w+)")
"""How Snakemake's log tells what a command ended with."""

LEFT_BEHIND = re.compile(
    r"async_generator_asend|aclose\(\): asynchronous generator is already running"
)
"""What Python says of the task that a cancelled log stream of modal 1.6 leaves behind."""

logging.getLogger("asyncio").addFilter(lambda record: not LEFT_BEHIND.search(record.getMessage()))

CHATTER = re.compile(
    r"Building DAG of jobs\.\.\.|Using shell: .*|Select jobs to execute\.\.\."
    r"|Execute \d+ jobs\.\.\.|Storing output in storage\.|Elapsed time: .*"
)
"""What Snakemake says in the container without need, and cannot be told to leave out."""


class Log:
    """The log of one call."""

    def __init__(self, path: Path, label: str, alone: Callable[[], bool], since: float) -> None:
        """Start a file.

        Args:
            path: Where the local copy goes.
            label: The job, in words.
            alone: Tells whether no other job is on Modal now, so that lines need no label.
            since: Unix time; what was logged before is not shown.
        """
        self.path, self.label, self._alone = path, label, alone
        self._since = datetime.fromtimestamp(since, UTC)
        self._known: set[int] = set()
        self._rest = ""
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._followed = False
        self.starts = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")

    def tell(self, text: str) -> None:
        """Write a line about this job to the terminal."""
        say(f"{self.label}: {text}")

    async def follow(self, call: "modal.FunctionCall[object]") -> None:
        """Show and keep lines as they come, until cancelled; a broken stream is taken up again."""
        self._followed = True
        pause = 0.1
        while True:
            try:
                async for entry in call.logs.stream.aio():
                    pause = 0.1
                    self._file.write(entry.message)
                    self._file.flush()
                    self._take(entry)
            except Exception:  # whatever it was: the result tells what became of the job
                task = asyncio.current_task()
                if task and task.cancelling():  # streams of modal 1.6 answer that as they like
                    return
                pause = min(2 * pause, 30.0)
            await asyncio.sleep(pause)

    async def wait_told(self, hardware: str) -> None:
        """Say from time to time that the job waits for ``hardware``, until it has started.

        Nothing is said of a log that is not followed: nobody knows then.
        """
        began, due = time.monotonic(), list(SAID_AFTER_S)
        while not self.starts:
            await asyncio.sleep(0.2)
            waited = time.monotonic() - began
            if waited > due[0] and self._followed and not self.starts:
                self.tell(f"waiting for {hardware}: {span(waited)}")
                due = due[1:] or [due[0] + SAID_AFTER_S[-1]]

    async def complete(
        self, call: "modal.FunctionCall[object]", started: float, *, ended: bool
    ) -> None:
        """Fetch the whole log, also what a broken stream has lost, and show what was not shown.

        Args:
            call: The call, which is over.
            started: Unix time at which it was started.
            ended: Whether it came to its end, so that there is a last line to wait for.
        """
        since = datetime.fromtimestamp(started, UTC) - SKEW
        entries: list[LogEntry] = []
        text = ""
        for pause in LATE_S if ended else LATE_S[:4]:
            await asyncio.sleep(pause)
            with contextlib.suppress(Exception):  # then the file has what the stream brought
                until = datetime.now(UTC) + SKEW
                entries = [entry async for entry in call.logs.fetch.aio(since=since, until=until)]
                text = "".join(entry.message for entry in entries)
            if ended and f"{MARK} ended" in text:
                break
        self._file.close()
        # Cut into entries as the stream was, so that each is known again? Else its time must do.
        alike = any(_mark(entry) in self._known for entry in entries)
        shown = None if alike else self._last
        for entry in entries:
            if shown is None or entry.timestamp > shown:
                self._take(entry)
        if f"{MARK} ended" in text or len(text.encode()) >= self.path.stat().st_size:
            write(self.path, text)

    def tail(self) -> str:
        """Return the last lines that the job itself wrote."""
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if not line.startswith(MARK)][-TAIL:])

    def status(self) -> str:
        """Return what the job's command ended with, as far as the log tells."""
        found = STATUS.findall(self.path.read_text(encoding="utf-8", errors="replace"))
        return max(found[-1]) if found else ""

    def add(self, text: str) -> None:
        """Append lines to the file."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def seconds(self, until: float | None = None) -> float:
        """Return the time from the job's first start to its last line, or to a Unix time."""
        last = datetime.fromtimestamp(until, UTC) if until else self._last
        if self._first is None or last is None:
            return 0.0
        return (last - self._first).total_seconds()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _take(self, entry: "LogEntry") -> None:
        """Show an entry, unless that was done already."""
        mark = _mark(entry)
        if mark in self._known:
            return
        self._known.add(mark)
        self._last = max(filter(None, (self._last, entry.timestamp)))
        *lines, self._rest = (self._rest + entry.message).split("\n")
        for line in lines:
            self._show(line, entry.timestamp)

    def _show(self, line: str, at: datetime) -> None:
        new = at > self._since
        if not line.startswith(MARK):
            if new and not CHATTER.fullmatch(line):
                say(line if self._alone() else f"{self.label} | {line}")
            return
        told = line.removeprefix(MARK).strip()
        if told.startswith("started"):
            self.starts += 1
            self._first = self._first or at
            told = f"preempted, {told} again" if self.starts > 1 else told
        if new and not told.startswith("ended"):
            self.tell(told)


def _mark(entry: "LogEntry") -> int:
    return hash((entry.timestamp, entry.message))
