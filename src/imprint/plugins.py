"""What installed packages add: providers and sources, found by the group of their entry points."""

import sys
from functools import cache
from importlib.metadata import EntryPoints, entry_points


def points(group: str) -> EntryPoints:
    """Return the entry points of ``group``; to look takes 15 ms, so it is done once."""
    return _points(group, tuple(sys.path))


@cache
def _points(group: str, path: tuple[str, ...]) -> EntryPoints:
    return entry_points(group=group)
