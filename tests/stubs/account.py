"""What a stub is told to do, and the truth about what it has done."""

import copy
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Settings:
    """How a stub behaves. May be changed while it runs: every request reads it anew."""

    latency: float = 0.0
    """Seconds until an answer. Errors of the client's making come at once."""
    script: tuple[str, ...] = ()
    """Faults in order, one a request, ``ok`` for none; then as ``rate`` says."""
    rate: float = 0.0
    """Share of requests that meet a random fault."""
    kinds: tuple[str, ...] = ("rate-limit", "overloaded-503", "truncated", "rival", "reset")
    """Faults that ``rate`` chooses from."""
    seed: int = 0
    """Of the random faults: they depend on it, the prompt and how often that was asked."""
    hits: tuple[str, ...] = ("chat",)
    """What faults may hit: ``chat``, ``models`` (models and key) and ``batch``."""
    retry_after: float = 1.0
    """Seconds, in every header or field that says when to come back."""
    price: tuple[float, ...] = (0.1, 0.4)
    """USD per million tokens of input and of output."""
    credit: float = 10.0
    """USD on the account; only GET /api/v1/key tells."""
    thoughts: int = 0
    """Tokens of reasoning with every answer: paid, and part of the limit on its length."""
    bills_lost: bool = False
    """Whether answers that never arrived are paid: reset, hang, cut-body, a client gone."""
    cap: int = 0
    """Requests under way at once from which 429 comes; 0 for no limit."""
    per_second: float = 0.0
    """Requests a second from which 429 comes, with as many at once to start; 0 for no limit."""
    schema_modes: tuple[str, ...] = ("json_schema", "json_object", "none")
    """Forms of answer it supports; others are refused, or not heeded if this has ``ignored``.

    Without a form it answers in prose, unless the prompt has the word JSON in capitals.
    """
    batch_polls: int = 2
    """The poll that finds a batch at its end."""
    batch_end: str = "completed"
    """Status in which batches end: completed, failed, expired or cancelled."""
    batch_script: tuple[str, ...] = ()
    """Faults of the requests in batches, in order."""
    models: tuple[str, ...] = ("stub-model",)
    """Models it lists. It answers to any name that does not start with ``missing``."""
    key: str = "stub-key"
    keep: int = 100
    """How many requests are kept with body and headers."""


@dataclass
class Count:
    """What a stub has seen and done since it started or was reset."""

    received: int = 0
    """Requests for an answer, whatever became of them."""
    answered: int = 0
    """Complete answers with content, those in batches included."""
    answered_to: Counter[str] = field(default_factory=Counter)
    """The same by prompt (`stubs.talker.identity`)."""
    asked: Counter[str] = field(default_factory=Counter)
    """Requests by prompt."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults by kind, and ``cap``, ``quota`` and ``refused`` (a request it objects to)."""
    gone: int = 0
    """Requests whose client went away before the answer."""
    cost: float = 0.0
    """USD for everything that is paid."""
    peak: int = 0
    """Most requests for an answer under way at once."""
    others: Counter[str] = field(default_factory=Counter)
    """Requests for something else, by method and path."""
    batches: int = 0
    """Batches taken in."""
    batched: int = 0
    """Requests in them."""
    bodies: deque[Any] = field(default_factory=deque)
    """The last JSON bodies received, of requests for an answer and of batches."""
    headers: deque[Mapping[str, str]] = field(default_factory=deque)
    """The headers they came with."""

    def see(self, body: object, headers: Mapping[str, str], keep: int) -> None:
        """Keep a request for the curious, and no more than ``keep`` of them."""
        self.bodies.append(body)
        self.headers.append(headers)
        while len(self.bodies) > keep:
            self.bodies.popleft()
            self.headers.popleft()

    def paid(self, identity: str, usd: float) -> None:
        """Enter an answer that arrived."""
        self.answered += 1
        self.answered_to[identity] += 1
        self.cost += usd

    def snapshot(self) -> "Count":
        """Return a copy that later requests do not change."""
        taken = Count(**{name: copy.copy(value) for name, value in vars(self).items()})
        taken.headers = deque(dict(seen) for seen in self.headers)
        return taken

    def json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            name: list(value) if isinstance(value, deque) else value
            for name, value in vars(self.snapshot()).items()
        }
