"""Calls that may be running on Modal, kept on disk from their start to their end.

Snakemake's own note of a job's external id is given up by ``--rerun-incomplete``; this is not.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .text import write


@dataclass(frozen=True)
class Entry:
    """A call."""

    call: str
    """Its id, ``fc-...``."""
    spec: str
    """Digest of what the job was told, read, and ran on."""
    rule: str
    gpu: str
    started: float
    """Unix time at which it was started, in seconds."""
    log: str
    """The local copy of its log."""


def key(rule: str, wildcards: Sequence[str], outputs: Sequence[str]) -> str:
    """Return the name under which a job is found again: by its outputs, or else its wildcards."""
    told = sorted(outputs) or [rule, *wildcards]
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]


class Ledger:
    """A folder with one small file for each call."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``, which is made when it is needed."""
        self.folder = folder

    def find(self, job: str) -> Entry | None:
        """Return the call of ``job``; None without one, or where the file is not readable."""
        try:
            return Entry(**json.loads(self._file(job).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, job: str, entry: Entry) -> None:
        """Remember the call of ``job``."""
        write(self._file(job), json.dumps(asdict(entry)))

    def drop(self, job: str) -> None:
        """Forget the call of ``job``."""
        self._file(job).unlink(missing_ok=True)

    def _file(self, job: str) -> Path:
        return self.folder / f"{job}.json"
