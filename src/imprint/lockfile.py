"""Tell a run that is alive from one that was killed, whose lock Snakemake would respect for ever.

Snakemake locks its folder with files, which outlive a SIGKILL. A lock of the operating system
does not: every run holds a shared one for as long as its process lives, so whoever gets it alone
knows that nobody else is running.
"""

import fcntl
import os
import platform
from pathlib import Path
from typing import TextIO

_held: list[TextIO] = []
"""Kept open until the process ends."""


def open_if_dead(folder: Path) -> bool:
    """Count this process among the runs in ``folder``; delete the locks of runs that were killed.

    Does nothing where the folder may not be written, where the file system knows no locks, or
    where the last run was started on another machine, which may still be at it.

    Args:
        folder: Snakemake's own folder, ``.snakemake``.

    Returns:
        Whether there were locks to delete.
    """
    try:
        folder.mkdir(exist_ok=True)
        file = (folder / "imprint.lock").open("a+", encoding="utf-8")
    except OSError:
        return False
    _held.append(file)
    try:
        alone = _try(file, fcntl.LOCK_EX)
        stale = [*folder.glob("locks/*")] if alone and _is_ours(file) else []
        for lock in stale:
            lock.unlink(missing_ok=True)
        if alone:
            file.truncate(0)
            file.write(platform.node())
            file.flush()
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return False
    return bool(stale)


def _try(file: TextIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_ours(file: TextIO) -> bool:
    file.seek(0, os.SEEK_SET)
    return file.read() in ("", platform.node())
