"""Where a stage goes on after a kill: the newest states, each complete or absent."""

import contextlib
import logging
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

from imprint import checkpoint
from imprint.errors import ArtifactError, StorageError

logger = logging.getLogger("imprint")

FORMAT = 2
KEPT = 2
"""States: if the newest is damaged, there is the one before."""
EARLY_MINUTES = 2.0
"""Until the first state of a process, at most: a disk too small for one shows at once."""
COMMIT = "IMPRINT_COMMIT"
"""Variable with a command that makes what was written outlive this machine; run after each state.
(A volume of Modal keeps what `sync .` has committed.)"""
COMMIT_S = 300.0
"""Longest commit: the other processes wait for the first, and NCCL gives up after 600 s."""


class States:
    """The newest two states of a stage, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Keep states in ``folder``, which belongs to one stage, one set of settings and inputs."""
        self.folder = folder

    def paths(self) -> list[Path]:
        """Return the states there are, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, step: int, content: dict[str, Any]) -> Path:
        """Write the state after ``step`` steps, then let go of all but the newest two.

        Raises:
            StorageError: The disk is full, or may not be written; the older states are untouched.
        """
        for left_by_a_kill in self.folder.glob(".*.tmp"):
            left_by_a_kill.unlink(missing_ok=True)
        path = self.folder / f"step-{step:09d}.pt"
        checkpoint.write(path, {"format": FORMAT, "step": step, **content})
        for old in self.paths()[:-KEPT]:
            old.unlink(missing_ok=True)
        return path

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that can be used, None if there is none."""
        for path in reversed(self.paths()):
            try:
                found = checkpoint.read(path)
            except ArtifactError:
                logger.warning("%s: damaged; going on from the state before it", path)
                continue
            if found.get("format") == FORMAT:
                return found
            logger.warning("%s: written by another version of imprint; not used", path)
        return None

    def clear(self) -> None:
        """Delete all states: the stage has finished."""
        for path in [*self.folder.glob("*"), *self.folder.glob(".*.tmp")]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()


class Keeper:
    """Saves states from time to time; one that cannot be written stops nothing."""

    def __init__(self, states: States, *, label: str, minutes: float) -> None:
        """Prepare to save every so many ``minutes``; ``label`` is the stage's name."""
        self.states, self.label, self.seconds = states, label, 60 * minutes
        self.next = time.monotonic() + min(self.seconds, 60 * EARLY_MINUTES)

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() > self.next

    def save(self, step: int, content: dict[str, Any]) -> bool:
        """Save the state after ``step`` steps, log what that cost, and return whether it worked."""
        began = time.monotonic()
        try:
            size = self.states.save(step, content).stat().st_size
        except (StorageError, OSError) as error:
            logger.warning(
                "%s: no state saved after step %d; training goes on. %s", self.label, step, error
            )
            return False
        finally:
            self.next = time.monotonic() + self.seconds
        seconds = time.monotonic() - began
        logger.info(
            "%s: saved the state after step %d: %.1f MB, %.2f s",
            *(self.label, step, size / 1e6, seconds),
        )
        commit(self.label)
        return True


def commit(label: str) -> None:
    """Run the command in ``IMPRINT_COMMIT``, if there is one; that it fails is a warning."""
    command = shlex.split(os.environ.get(COMMIT, ""))
    if not command:
        return
    began = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMIT_S)
        problem = f"exit status {done.returncode}. {done.stderr.strip()}" * bool(done.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        logger.warning(
            "%s: the state may not outlive this machine; training goes on. %s (%s)",
            *(label, problem, shlex.join(command)),
        )
    else:
        logger.info("%s: committed it, %.2f s", label, time.monotonic() - began)
