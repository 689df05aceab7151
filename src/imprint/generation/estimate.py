"""What conversations will cost before any is asked for: requests, tokens, money and time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imprint import plan, providers, recipe
from imprint.errors import ConfigError
from imprint.generation import JOURNAL
from imprint.generation.journal import Experience, Journal
from imprint.generation.prices import BYTES_A_TOKEN, tariff
from imprint.identity import Identity, load
from imprint.page import duration
from imprint.settings import Provision, Settings

USUAL = Experience(asks=1.1, output=130.0, seconds=4.0)
"""What to expect of a model that the journal knows too little about."""


@dataclass(frozen=True)
class Estimate:
    """What is to be expected of a run."""

    model: str
    source: str
    """Where the price is from."""
    conversations: int
    """That have no answer in the journal yet."""
    known: int
    """That have one: they cost nothing."""
    requests: int
    input_tokens: int
    output_tokens: int
    usd: float
    seconds: float
    """As long as nothing is asked in batches."""
    batch: bool
    spent_usd: float
    budget_usd: float

    @property
    def affordable(self) -> int:
        """How many conversations the rest of the budget buys."""
        if not self.usd:
            return self.conversations
        left = max(0.0, self.budget_usd - self.spent_usd)
        return min(self.conversations, math.floor(left / self.usd * self.conversations))

    def told(self) -> str:
        """Return the estimate as a sentence or two."""
        if not self.conversations:
            return f"All {self.known} conversations are in the journal: nothing to pay."
        known = f" ({self.known} more are in the journal)" if self.known else ""
        time = "within a day" if self.batch else duration(self.seconds)
        return (
            f"{self.conversations} conversations from {self.model}{known}: about "
            f"{self.requests} requests, {self.input_tokens / 1e6:.2f} million tokens in and "
            f"{self.output_tokens / 1e6:.2f} out, ${self.usd:.2f} (price: {self.source}), "
            f"{time}. Spent so far: ${self.spent_usd:.2f} of ${self.budget_usd:.2f}."
        )

    def check(self) -> None:
        """Refuse a run that the budget will not last for.

        Raises:
            ConfigError: It says what the rest of the budget buys.
        """
        if not self.conversations or self.spent_usd + self.usd <= self.budget_usd:
            return
        need = self.spent_usd + self.usd
        raise ConfigError(
            f"budget_usd: {self.conversations} conversations will cost about ${self.usd:.2f}, and "
            f"${self.spent_usd:.2f} of ${self.budget_usd:.2f} is spent already. The rest buys "
            f"about {self.affordable}. Set budget_usd to at least {need * 1.1:.2f}, or "
            "`conversations` lower."
        )


def estimate(
    identity: Identity,
    provision: Provision,
    *,
    seed: int,
    ranges: Iterable[tuple[int, int]],
    journal: Path,
) -> Estimate:
    """Estimate what the conversations of the plan in ``ranges`` (first, past the last) will take.

    Raises:
        ConfigError: Key, price or acknowledged terms are missing.
    """
    kind = providers.find(provision.provider)
    writer = kind(identity, provision)
    providers.acknowledged(writer, provision)
    price = tariff(provision, kind, writer.model)
    rows = [
        row
        for start, stop in ranges
        for row in plan.rows(identity, seed=seed, start=start, stop=stop)
    ]
    asked = [writer.request(row) for row in rows]
    spent, usual = 0.0, USUAL
    if journal.exists():
        with Journal(journal, label="estimate") as book:
            spent = book.money.spent_usd
            usual = book.experience(writer.name, writer.model) or USUAL
            asked = [request for request in asked if not book.find(request.key)]

    prompt = sum(len(f"{request.system}{request.user}".encode()) for request in asked)
    tokens_in = usual.asks * prompt / BYTES_A_TOKEN
    tokens_out = usual.asks * len(asked) * usual.output
    return Estimate(
        model=writer.model,
        source=price.source,
        conversations=len(asked),
        known=len(rows) - len(asked),
        requests=math.ceil(usual.asks * len(asked)),
        input_tokens=math.ceil(tokens_in),
        output_tokens=math.ceil(tokens_out),
        usd=price.usd(tokens_in, tokens_out),
        seconds=usual.asks * usual.seconds * max(1.0, len(asked) / provision.in_flight),
        batch=provision.batch,
        spent_usd=spent,
        budget_usd=provision.budget_usd,
    )


def before(settings: Settings, shards: Iterable[str], journal: Path = JOURNAL) -> Estimate | None:
    """Return what making ``shards`` will take; None if their provider is free and instant.

    Raises:
        ConfigError: Key, price or acknowledged terms are missing.
    """
    if providers.find(settings.provider).instant:
        return None
    ranges = recipe.shards(settings)
    return estimate(
        load(Path(settings.identity)),
        recipe.provision(settings),
        seed=settings.seed,
        ranges=[ranges[shard] for shard in shards],
        journal=journal,
    )


def announced(settings: Settings, shards: Iterable[str], journal: Path = JOURNAL) -> str | None:
    """Begin a run that makes ``shards``: return what to tell about it, None if it is free.

    Raises:
        ConfigError: Key, price or acknowledged terms are missing, or the budget will not last.
    """
    found = before(settings, shards, journal)
    if found is None:
        return None
    found.check()
    with Journal(journal, label="start of a run") as book:
        book.begin(found.conversations + found.known)
    return found.told()
