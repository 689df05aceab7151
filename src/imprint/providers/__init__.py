"""Who writes the conversations: the door through which every provider comes, ours included.

A provider is a class named in the entry-point group ``imprint.providers``. It turns a row of the
plan into a request, and a request into a reply; asking again, keeping every answer and counting
the money is done for it (`imprint.generation`).
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import ClassVar

from imprint.artifacts import digest
from imprint.errors import ConfigError, ProviderError
from imprint.identity import Identity
from imprint.plan import Row
from imprint.plugins import points
from imprint.records import Conversation
from imprint.settings import Price, Provision

GROUP = "imprint.providers"


_digest = lru_cache(maxsize=16)(digest)
"""The system prompt is long, and the same for all rows."""


@dataclass(frozen=True)
class Request:
    """What is asked of a provider: all that decides its answer, and how long that may get."""

    row: Row
    ask: int
    """1 at first; one more each time an answer to this row was of no use."""
    provider: str
    model: str
    system: str = ""
    """The part of the prompt that is the same for every row, so that servers can cache it."""
    user: str = ""
    """The part of the prompt that is about this row."""
    max_tokens: int = 0
    """Longest answer in tokens; 0 where nothing is counted."""

    @cached_property
    def key(self) -> str:
        """Digest of what decides the answer: equal requests are paid for once."""
        asked = [self.provider, self.model, _digest(self.system), self.user]
        return digest([*asked, self.row.index, self.row.seed, self.ask])


@dataclass(frozen=True)
class Reply:
    """What a provider answers: a conversation, and what it took."""

    messages: Conversation
    model: str
    """The model that answered, which may not be the one asked for."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens by kind: ``input`` and ``output``, reasoning included, and what else was counted."""
    cost_usd: float | None = None
    """None where the provider does not tell: the price table does."""
    flaw: str | None = None
    """Why the answer is of no use, in a word or two: truncated, refused, blocked, malformed."""


@dataclass(frozen=True)
class Probe:
    """What a provider found out about its server, and what that took."""

    found: str
    """Whatever the provider wants to be told next time."""
    usage: dict[str, int] = field(default_factory=dict)
    """Tokens by kind, as in a reply."""
    cost_usd: float | None = None


@dataclass(frozen=True)
class Batch:
    """How far a batch of requests is."""

    state: str
    """In the provider's words."""
    results: Mapping[str, Reply | ProviderError] | None = None
    """By key, once it has ended: replies, and the errors that `Provider.answer` would raise."""
    reason: str = ""
    """Why it ended before its time: requests without a result are not billed then."""


class Provider(ABC):
    """Something that writes a conversation for a row of a plan; the base of all that do."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised by the provider's author when the same row gets another conversation."""
    default_model: ClassVar[str]
    key_variable: ClassVar[str | None] = None
    """Environment variable that holds the API key; None if no key is needed."""
    conversations: ClassVar[int] = 1000
    """How many to plan unless the configuration says so."""
    shard_size: ClassVar[int] = 250
    """How many in a shard unless the configuration says so."""
    instant: ClassVar[bool] = False
    """Whether it answers at once and for free: then no answer is kept, none is asked for twice."""
    batches: ClassVar[bool] = False
    """Whether it takes many requests at once, to be answered within a day at a lower price."""
    terms: str | None = None
    """What its terms say against training on its answers; the user has to acknowledge it."""
    price: ClassVar[Price | None] = None
    """What it costs, where no table knows it."""

    def __init__(self, identity: Identity, provision: Provision) -> None:
        """Prepare to write about ``identity``; read the key, but do not connect.

        Raises:
            ConfigError: The key is missing, or a setting is wrong.
        """
        if provision.batch and not self.batches:
            raise ConfigError(
                f"batch: {self.name} has no batches here. Set batch to false in "
                "config/config.yaml, or choose a provider that has."
            )
        self.identity = identity
        self.model = provision.provider_model or self.default_model

    @cached_property
    def _about(self) -> str:
        return f"version {self.version} about {digest(self.identity.model_dump())}"

    def request(self, row: Row, ask: int = 1) -> Request:
        """Return what would be asked for ``row`` the ``ask``-th time; equal for equal arguments."""
        return Request(row, ask, self.name, self.model, self._about, str(row))

    async def probe(self, known: str | None) -> "Probe | None":
        """Find out, before the first request, whether and how the server can be asked.

        Args:
            known: What was found out before; then nothing needs to be sent.

        Returns:
            What was found out; None if there is nothing to find out.

        Raises:
            ProviderError: Key, model or address are wrong.
        """
        return None

    @abstractmethod
    async def answer(self, request: Request) -> Reply:
        """Send ``request`` and return what comes back.

        Raises:
            ProviderBusy: Not answered, nothing to pay; it may be asked again.
            AnswerLost: Perhaps answered, perhaps to be paid, but nothing arrived.
            ProviderError: There is no point in asking for anything else either.
        """

    async def submit(self, requests: Sequence[Request]) -> str:
        """Hand in ``requests`` as one batch; return its name. Raises as `answer` does."""
        raise NotImplementedError

    async def poll(self, batch: str, requests: Mapping[str, Request]) -> Batch:
        """Return how far ``batch`` is; read the results of ``requests``, by key, if it has ended.

        A batch that is not known any more has ended without results. Raises as `answer` does.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Give back connections."""
        return


def names() -> list[str]:
    """Return the names of the installed providers, sorted."""
    return sorted(point.name for point in points(GROUP))


def find(name: str) -> type[Provider]:
    """Return the provider called ``name``.

    Raises:
        ConfigError: No installed package has one.
    """
    for point in points(GROUP):
        if point.name == name:
            found: type[Provider] = point.load()
            return found
    close = difflib.get_close_matches(name, names(), n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else "Or install the package that adds it."
    raise ConfigError(
        f"provider: no provider is named {name!r}; installed: {', '.join(names())}. {remedy}"
    )


def acknowledged(provider: Provider, provision: Provision) -> None:
    """Refuse a provider whose terms restrict training on its answers, unless the user knows.

    Raises:
        ConfigError: It is not in `acknowledge_terms`.
    """
    if provider.terms and provider.name not in provision.acknowledge_terms:
        raise ConfigError(
            f"acknowledge_terms: {provider.terms} If you may train on its answers all the same, "
            f"add {provider.name} to acknowledge_terms in config/config.yaml; the manifests "
            "record that you did."
        )
