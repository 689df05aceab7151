"""A Snakemake logger that says what happens in words: ``logger: imprint`` in a profile.

A line when a job starts and one when it is done; of a failed job, what its log says is wrong.
Snakemake's own log under .snakemake/log keeps everything else.
"""

import os
import sys
import time
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from typing import Any, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

TAIL = 20
"""Lines shown of a failed job's log that does not end in an ``error:`` line."""

TARGETS = ("all", "data")
"""Rules that only gather files: not shown, and not counted."""

FOLLOWS = ("RuleException", "WorkflowError:\nAt least one job did not complete")
"""Starts of error messages that only repeat that a job has failed."""

ELSEWHERE = "For further error details see"
"""Begins what Snakemake adds to the reason for which a job failed on other machines."""

TOLD = ("Nothing to be done", "Will exit after finishing currently running jobs")
"""Starts of plain messages worth showing."""


class LogHandler(LogHandlerBase):
    """Writes to stderr."""

    stream: TextIO

    def __post_init__(self) -> None:
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.colours = (
            self.stream.isatty()
            and not self.common_settings.nocolor
            and "NO_COLOR" not in os.environ
        )
        self.started: dict[int, tuple[str, float]] = {}
        self.finished: list[str] = []
        self.targets = 0

    def emit(self, record: LogRecord) -> None:
        """Show ``record`` if a person should see it."""
        told: dict[str, Any] = record.__dict__
        match told.get("event"):
            case LogEvent.JOB_INFO:
                self._begin(told)
            case LogEvent.JOB_FINISHED:
                self._end(told["job_id"])
            case LogEvent.PROGRESS:
                self._count(told["done"], told["total"])
            case LogEvent.JOB_ERROR:
                self._failed(told)
            case LogEvent.SHELLCMD if self.common_settings.printshellcmds:
                self._write(str(record.msg))
            case LogEvent.RUN_INFO:
                self.targets = sum(told["stats"].get(name, 0) for name in TARGETS)
            case _:
                self._other(record)

    def _begin(self, told: dict[str, Any]) -> None:
        if told["rule_name"] in TARGETS:
            return
        if self.common_settings.dryrun:
            self._write(f"would  {told['rule_msg']}\n       {told['rule_name']}: {told['reason']}")
            return
        message = told["rule_msg"] or told["rule_name"]
        self.started[told["jobid"]] = (message, time.monotonic())
        self._write(f"start  {message}", "36")

    def _end(self, job: int) -> None:
        if job in self.started:
            message, since = self.started.pop(job)
            self.finished.append(f"done   {message}, {time.monotonic() - since:.1f} s")

    def _count(self, done: int, total: int) -> None:
        """Show what has finished since, now that it is known how much that is of the whole."""
        for number, line in enumerate(self.finished, start=done - len(self.finished) + 1):
            self._write(f"{line} ({number} of {total - self.targets})", "32")
        self.finished.clear()

    def _failed(self, told: dict[str, Any]) -> None:
        message, _ = self.started.pop(told["jobid"], (told["rule_name"], 0.0))
        self._write(f"failed {message}", "31")
        logs = [Path(path) for path in [*(told.get("log") or []), *(told.get("aux_logs") or [])]]
        why = str(told.get("rule_msg") or "").partition(ELSEWHERE)[0].strip()
        if why and not any(path.is_file() for path in logs):  # it never began, somewhere else
            self._write(f"error: {why}")
            return
        for path in logs:
            self._write(said(path))

    def _other(self, record: LogRecord) -> None:
        text = str(record.getMessage() or "")
        if text.startswith("Exiting because a job execution failed"):
            self._write("Stopped. Put that right and run the same again: what is done stays.")
        elif record.levelno >= ERROR and not text.startswith(FOLLOWS):
            self._write(text, "31")
        elif record.levelno == WARNING:
            self._write(text, "33")
        elif text.startswith(TOLD) or self.common_settings.verbose:
            self._write(text)

    def _write(self, text: str, colour: str = "") -> None:
        if text:
            line = f"\033[{colour}m{text}\033[0m" if colour and self.colours else text
            # A job may have left its progress in this line: what is longer goes away.
            end = "\033[K" if self.stream.isatty() else ""
            self.stream.write(f"{line}{end}\n")
            self.stream.flush()

    @property
    def writes_to_stream(self) -> bool:
        """Yes, so Snakemake adds no handler of its own for the terminal."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """No."""
        return False

    @property
    def has_filter(self) -> bool:
        """Yes: ``emit`` chooses."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Yes: ``emit`` words."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """No."""
        return False


def said(log: Path) -> str:
    """Return why a job failed: the last ``error:`` of its ``log``, or else its last lines."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"       It left no log ({log})."
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            return "\n".join([*lines[number:], f"       The log: {log}"])
    return "\n".join([*lines[-TAIL:], f"       The log: {log}"])
