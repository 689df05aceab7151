"""Lines on the terminal, and files that are there whole or not at all."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

EVERY_S = 15.0
"""Between two lines about work that takes its time."""


def write(path: Path, content: str) -> None:
    """Put ``content`` into ``path``, which appears or changes at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


def say(text: str) -> None:
    """Write a line to stderr, where a job's own output would be if it ran here."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextlib.asynccontextmanager
async def ticking(what: Callable[[], str]) -> AsyncIterator[None]:
    """Say every now and then, while the block runs, what is being done and for how long."""
    began = time.monotonic()

    async def tick() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            say(f"{what()}: {span(time.monotonic() - began)}")

    ticks = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticks.cancel()


def span(seconds: float) -> str:
    """Return a time as people say it: ``12.3 s``, ``4 min``, ``3.4 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes as people say it: ``812 kB``, ``2.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
