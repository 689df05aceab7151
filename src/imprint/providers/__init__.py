"""Who writes the conversations: the door through which every provider comes, ours included.

A provider is a class named in the entry-point group ``imprint.providers``.
"""

import difflib
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import ClassVar, Protocol

from imprint.errors import ConfigError
from imprint.identity import Identity
from imprint.plan import Row
from imprint.records import Conversation

GROUP = "imprint.providers"


@dataclass(frozen=True)
class Reply:
    """What a provider answers: a conversation, and what it took."""

    messages: Conversation
    model: str
    """The model that answered, which may not be the one asked for."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens, by kind."""
    cost_usd: float = 0.0


class Provider(Protocol):
    """Something that writes a conversation for a row of a plan."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised by the provider's author when the same row gets another conversation."""
    key_variable: ClassVar[str | None]
    """Environment variable that holds the API key; None if no key is needed."""
    conversations: ClassVar[int]
    """How many to plan unless the configuration says so."""
    shard_size: ClassVar[int]
    """How many in a shard unless the configuration says so."""
    model: str

    def __init__(self, identity: Identity, model: str | None = None) -> None:
        """Prepare to write about ``identity`` with ``model``; read the key, but do not connect."""

    async def converse(self, row: Row) -> Reply:
        """Return a conversation for ``row``.

        Raises:
            ProviderBusy: Rate limit or overload; the caller may ask again later.
            ProviderError: Anything else the provider objects to.
        """


def names() -> list[str]:
    """Return the names of the installed providers, sorted."""
    return sorted(point.name for point in entry_points(group=GROUP))


def find(name: str) -> type[Provider]:
    """Return the provider called ``name``.

    Raises:
        ConfigError: No installed package has one.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            found: type[Provider] = point.load()
            return found
    close = difflib.get_close_matches(name, names(), n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else "Or install the package that adds it."
    raise ConfigError(
        f"provider: no provider is named {name!r}; installed: {', '.join(names())}. {remedy}"
    )
