"""What becomes of a row, and the words for an end before all rows are through."""

import asyncio
import re
from collections import Counter, deque
from dataclasses import dataclass, field

from imprint.errors import ProviderBusy, ProviderError
from imprint.generation.journal import Money
from imprint.plan import Row
from imprint.providers import Reply, Request

WINDOW = 50
"""Outcomes looked back on: when half of them are failures, going on only burns money."""

BURST = 5
"""Answers lost in a row that count as failures: a moment without network loses all under way."""

_VERSION = re.compile(r"(?:[-@:](?:v?\d[\d.-]*|latest|preview|exp|free))*")
"""What may follow the name of a model without making it another one."""


@dataclass
class Conclusion:
    """What became of a row."""

    row: Row
    asks: int = 0
    """Answers it took."""
    cost_usd: float = 0.0
    """Of all of them."""
    key: str = ""
    """Of the request that was answered last."""
    reason: str | None = "not asked"
    """Why that answer cannot be used; None if it can."""


@dataclass
class Flight:
    """A request on its way to an answer."""

    request: Request
    tries: int = 0
    """Attempts that ended without an answer, rate limits not counted."""
    sent: float = 0.0
    """Seconds since 1970."""
    outcome: Reply | Exception | None = None
    task: asyncio.Task[None] | None = None
    """Held here: the event loop would let it go."""


@dataclass
class Counts:
    """What a worker tells the others, and whoever watches."""

    done: int = 0
    retried: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


class Doubt:
    """Looks back on outcomes, to tell when most of them are failures."""

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._lost = 0
        """Answers lost since the last one that arrived."""

    def arrived(self, useful: bool, *, first: bool) -> bool:
        """Take note of an answer; return whether to give up.

        Args:
            useful: Whether it can be used.
            first: Whether it is the first to its row: further ones are about rows known to be hard.
        """
        self._lost = 0
        return first and self._note(useful)

    def lost(self) -> bool:
        """Take note of an answer that never arrived; return whether to give up."""
        self._lost += 1
        return self._lost <= BURST and self._note(False)

    def _note(self, useful: bool) -> bool:
        self._recent.append(useful)
        return len(self._recent) == WINDOW and sum(self._recent) <= WINDOW // 2


def same_model(answered: str, asked: str) -> bool:
    """Tell whether a model is the one asked for; dates and versions at the end are no difference.

    Example:
        >>> same_model("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini"), same_model("x-mini", "x:free")
        (True, False)
    """
    plain, full = (name.removeprefix("models/").casefold() for name in (asked, answered))
    plain = plain.split(":")[0]
    return full.startswith(plain) and bool(_VERSION.fullmatch(full[len(plain) :]))


def stranger(answered: str, request: Request) -> str:
    """Say that another model answers."""
    return f"provider {request.provider}: {answered} answers, not {request.model}"


def strange(answered: str, request: Request) -> ProviderError:
    """Return the error for another model's answer where that is not allowed."""
    return ProviderError(
        f"{stranger(answered, request)}, and strict_model is set. Set provider_model to a model "
        "that answers under its own name, or unset strict_model. What was answered is kept."
    )


def broke(money: Money, *, budget_usd: float, next_usd: float) -> ProviderError:
    """Return the error for a budget that is used up."""
    lost = f", ${money.lost_usd:.4f} of it for answers that never arrived" if money.lost else ""
    return ProviderError(
        f"budget_usd: ${money.spent_usd:.4f} of ${budget_usd:.2f} is spent{lost}, and the next "
        f"conversation may cost ${next_usd:.4f}. All {money.answers} answers so far are kept. Set "
        "budget_usd higher in config/config.yaml and run again: it goes on from here."
    )


def given_up(flight: Flight, outcome: Exception) -> ProviderBusy:
    """Return the error for a request that gets no answer."""
    request = flight.request
    question = f"conversation {request.row.index}"
    return unanswered(request.provider, question, max(1, flight.tries), outcome)


def unanswered(provider: str, question: str, tries: int, outcome: Exception) -> ProviderBusy:
    """Return the error for a question that was asked in vain."""
    return ProviderBusy(
        f"provider {provider}: no answer to {question} in {tries} attempts; the last: "
        f"{str(outcome).rstrip('.')}. What was answered is kept. Run the same command again later: "
        "it goes on from here."
    )


def hopeless(request: Request, reasons: Counter[str], window: int) -> ProviderError:
    """Return the error for a provider whose answers are mostly of no use."""
    told = ", ".join(f"{why} {count}" for why, count in reasons.most_common(5))
    return ProviderError(
        f"provider {request.provider}: half of the last {window} answers of {request.model} cannot "
        f"be used ({told or 'they never arrived'}). The log shows examples. Try another "
        "provider_model, or correct the identity's `expect`. What was answered is kept."
    )


def broken(request: Request, error: Exception) -> ProviderError:
    """Return the error for a provider that raised what it should not."""
    return ProviderError(
        f"provider {request.provider}: broke at conversation {request.row.index} "
        f"({type(error).__name__}: {error}). The log holds the traceback for its author."
    )
