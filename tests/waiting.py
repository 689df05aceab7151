"""Patience, for tests of what other processes do."""

import time
from collections.abc import Callable


def eventually(what: str, holds: Callable[[], object], *, timeout_s: float = 60) -> None:
    """Wait until ``holds()`` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.01)
