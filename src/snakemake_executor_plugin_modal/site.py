"""What the jobs of a run share."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import money
from .image import Deployed
from .ledger import Ledger
from .volume import Folder

if TYPE_CHECKING:
    from .call import Life

LONG_REQUESTS = 40
"""Calls waited for at once, and logs listened to at once. A server takes some 100 requests on a
connection at a time, and the others queue: those that start and those that cancel have to pass."""


@dataclass
class Site:
    """All that belongs to the run, not to a job."""

    folder: Folder
    deployed: Deployed
    ledger: Ledger
    budget: money.Budget
    state: Path
    """``.snakemake/modal``."""
    logs: Path
    """``.snakemake/log/modal``."""
    sources: list[str]
    extras: list[str]
    """Files and folders that jobs read undeclared."""
    before: str
    """Command run in the container ahead of each job."""
    env: dict[str, str]
    region: list[str]
    fallbacks: list[str]
    bill: money.Bill
    live: "dict[str, Life]" = field(default_factory=dict)
    """Jobs that are on Modal or on their way, by their keys."""
    waits: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LONG_REQUESTS))
    ears: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LONG_REQUESTS))
    """Held while a call is waited for, and while a log is listened to."""
