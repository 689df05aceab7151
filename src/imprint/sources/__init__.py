"""Where plain text and general chat come from: the door for every source, ours included.

A source is a class named in the entry-point group ``imprint.sources``.
"""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import ClassVar, Protocol

from imprint.errors import ConfigError
from imprint.records import Conversation

GROUP = "imprint.sources"


class Source(Protocol):
    """Something that holds documents, conversations or both."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised by the source's author when the same call yields something else."""

    def documents(self, *, characters: int, seed: int) -> Iterator[str]:
        """Yield plain-text documents, ``characters`` long in all or a little more."""

    def conversations(self, *, count: int, seed: int) -> Iterator[Conversation]:
        """Yield ``count`` general conversations that mention no identity."""


def names() -> list[str]:
    """Return the names of the installed sources, sorted."""
    return sorted(point.name for point in entry_points(group=GROUP))


def find(name: str) -> Source:
    """Return the source called ``name``.

    Raises:
        ConfigError: No installed package has one.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            source: Source = point.load()()
            return source
    raise ConfigError(
        f"source: no source is named {name!r}; installed: {', '.join(names())}. "
        "Fix the name, or install the package that adds it."
    )
