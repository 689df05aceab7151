"""Ask a provider for a conversation per row of a plan in batches: slower, at half the price.

All that is missing is handed in at once, then asked after until it is there. The journal knows
every open batch, so whoever needs its answers next collects them, after a restart too. As in
`dispatch`, money is reserved before anything is sent, and an answer is kept before it is judged.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

from imprint.errors import AnswerLost, ConfigError, ImprintError, ProviderBusy, ProviderError
from imprint.generation import outcomes, pacing, probing
from imprint.generation.batchbook import Batchbook, Open, portions
from imprint.generation.dispatch import TRIES, Generation
from imprint.generation.harvest import Harvest, Objection
from imprint.generation.journal import Journal, Kept
from imprint.generation.outcomes import WINDOW, Conclusion, Flight
from imprint.generation.prices import BATCH, Tariff
from imprint.plan import Row
from imprint.providers import Batch, Provider, Reply, Request
from imprint.settings import Provision

logger = logging.getLogger("imprint")

FIRST_S, LONGEST_S = 2.0, 60.0
"""Shortest and longest time between two polls: a tenth of the batch's age."""

ROUNDS = 4
"""Batches that a request may go into until one answers it."""

SILENCE = 60
"""Polls in a row without an answer after which the provider is given up."""


class Batching:
    """One worker's share of a run: its rows, asked of one provider in batches."""

    def __init__(
        self,
        provider: Provider,
        *,
        journal: Journal,
        provision: Provision,
        tariff: Tariff,
        objection: Objection,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to ask; the arguments are those of `Generation`."""
        self.provider, self.journal, self.provision = provider, journal, provision
        self.tariff, self.watch = tariff, watch
        self.harvest = Harvest(provider, journal, provision, objection)
        self.book = Batchbook(journal, provider.name, provider.model)
        self.wanted: dict[str, Request] = {}
        """By key, what has no answer yet."""
        self.failures: Counter[str] = Counter()
        """By key, how many batches did not answer it."""
        self.useful: list[bool] = []
        """Of each first answer to a row."""
        self.states: dict[str, str] = {}
        """By batch, how far it was at the last poll."""
        self.refusals, self.silence, self.resume = 0, 0, 0.0
        self.submitting = self.interrupted = False
        self.task: asyncio.Task[object] | None = None

    async def run(self, rows: Sequence[Row]) -> list[Conclusion]:
        """Return what became of each of ``rows``, in their order; raises as `Generation.run`."""
        self.task = asyncio.current_task()
        try:
            await self._run(rows)
        except asyncio.CancelledError:
            raise ImprintError(
                f"Interrupted. Batches that go on at {self.provider.name}: {len(self._open())}. "
                "They will be paid: run the same command again to collect them."
            ) from None
        return self.harvest.conclusions(rows)

    def interrupt(self) -> None:
        """Stop asking after the batches; they go on without us."""
        self.interrupted = True
        if self.task and not self.submitting:  # else its name would never be known
            self.task.cancel()

    async def _run(self, rows: Sequence[Row]) -> None:
        self.harvest.sow(rows)
        for row in rows:
            self._ask(row)
        if self.wanted:
            full = Tariff(self.tariff.input / BATCH, self.tariff.output / BATCH, "in no batch")
            await probing.probe(
                self.provider, journal=self.journal, provision=self.provision, tariff=full
            )
        while self.wanted:
            self._tidy()
            short = await self._hand_in() if time.time() >= self.resume else None
            batches = self._open()
            if short is not None and not batches and not self.book.others():
                budget = self.provision.budget_usd
                raise outcomes.broke(self.journal.money, budget_usd=budget, next_usd=short)
            for batch in batches:
                await self._poll(batch)
            self.watch()
            if self.wanted:
                await asyncio.sleep(self._rest_s())
        self._tidy()

    def _ask(self, row: Row) -> None:
        """Put the next request for ``row`` among what is wanted, if it needs one."""
        request = self.harvest.next_request(row)
        if request is not None:
            self.wanted[request.key] = request
        if self.harvest.fatal:
            raise self.harvest.fatal

    def _tidy(self) -> None:
        """Tell how far this worker is, and take in what others have left or answered."""
        self.book.sweep()
        with self.journal.transaction():
            self.harvest.tell()
            for batch in self._open():
                self.book.attend(batch.name)
        for key, request in list(self.wanted.items()):
            if self.journal.find(key):
                del self.wanted[key]
                self._ask(request.row)

    def _open(self) -> list[Open]:
        """Return the batches that hold anything wanted."""
        return [batch for batch in self.book.open() if self.wanted.keys() & batch.keys]

    async def _hand_in(self) -> float | None:
        """Hand in what is in no batch yet; return what the next costs if the budget is too small.

        Nothing is sent that is not reserved and noted, so a kill loses at most one batch.
        """
        held = {key for batch in self._open() for key in batch.keys}
        free = [request for key, request in self.wanted.items() if key not in held]
        for portion in portions(free):
            batch, short = [], None
            with self.journal.transaction():
                for request in portion:
                    most, budget = self.tariff.most(request), self.provision.budget_usd
                    verdict = self.journal.reserve(request.key, most_usd=most, budget_usd=budget)
                    if verdict == "dear":
                        short = most
                        break
                    if verdict == "go":  # else another worker is handing it in
                        batch.append(request)
                self.book.hold([request.key for request in batch])
            if batch:
                await self._submit(batch)
            if short is not None or time.time() < self.resume:
                return short
        return None

    async def _submit(self, requests: list[Request]) -> None:
        self.submitting = True
        try:
            name = await self.provider.submit(requests)
        except Exception as error:
            self._return(requests, error)
        else:
            with self.journal.transaction():
                self.book.call(name)
            self.refusals = 0
            logger.info("batch %s: %d requests handed in", name, len(requests))
        finally:
            self.submitting = False
        if self.interrupted:
            raise asyncio.CancelledError

    def _return(self, requests: list[Request], error: Exception) -> None:
        """Give back what was reserved for a batch that was not taken, and decide what follows."""
        with self.journal.transaction():
            for request in requests:
                self._book(request, error)
        first, self.refusals = requests[0], self.refusals + 1
        match error:
            case ProviderBusy() | AnswerLost() if self.refusals < TRIES:
                wait = error.wait_s if isinstance(error, ProviderBusy) else None
                if isinstance(error, ProviderBusy) and error.limit and self._open():
                    self.refusals -= 1  # there is a limit on open batches; they will end
                self.resume = time.time() + pacing.backoff_s(max(1, self.refusals), wait)
                logger.warning("warning: a batch of %d was not taken: %s", len(requests), error)
            case ProviderBusy() | AnswerLost():
                raise outcomes.given_up(Flight(first, self.refusals), error)
            case _:
                raise self._fatal(first, error)

    async def _poll(self, batch: Open) -> None:
        """Ask after a batch, and collect it if it has ended."""
        mine = {key: self.wanted[key] for key in batch.keys if key in self.wanted}
        try:
            found = await self.provider.poll(batch.name, mine)
        except (ProviderBusy, AnswerLost) as error:
            self.silence += 1
            if self.silence == SILENCE:
                raise outcomes.given_up(Flight(next(iter(mine.values()))), error) from None
            found = Batch(f"no word ({error})")
        except Exception as error:
            raise self._fatal(next(iter(mine.values())), error) from None
        else:
            self.silence = 0
        if found.state != self.states.get(batch.name):
            self.states[batch.name] = found.state
            age = (time.time() - batch.at) / 60
            said = (batch.name, found.state, len(mine), age)
            logger.info("batch %s: %s, %d requests, handed in %.0f min ago", *said)
        if found.results is not None:
            self._collect(batch, found, mine)

    def _collect(self, batch: Open, found: Batch, mine: dict[str, Request]) -> None:
        """Keep the answers of a batch that has ended; see to it that the rest is asked again."""
        assert found.results is not None
        booked: list[tuple[Request, Reply | Exception]] = []
        with self.journal.transaction():
            for key, request in mine.items():
                if not self.book.take(key):
                    continue  # another worker has collected it
                outcome: Reply | Exception = found.results.get(key) or _missing(batch.name, found)
                self._book(request, outcome)
                booked.append((request, outcome))
        for request, outcome in booked:
            self._settle(request, outcome)
        if len(self.useful) >= WINDOW and sum(self.useful) <= len(self.useful) // 2:
            raise outcomes.hopeless(booked[0][0], self.harvest.counts.reasons, len(self.useful))

    def _book(self, request: Request, outcome: Reply | Exception) -> None:
        """Write down what a batch made of a request, before anything else happens with it."""
        self.book.take(request.key)
        match outcome:
            case Reply() as reply:
                # Hours in a batch say nothing about how long an answer takes.
                self.journal.keep(request, reply, cost_usd=self.tariff.cost(reply), seconds=0.0)
            case AnswerLost() as error:
                self.journal.lose(request.key, str(error))
            case _:
                self.journal.release(request.key)

    def _settle(self, request: Request, outcome: Reply | Exception) -> None:
        """Decide what follows from it."""
        match outcome:
            case Reply():
                del self.wanted[request.key]
                useful = self.harvest.judge(request, Kept(outcome, self.tariff.cost(outcome)))
                if request.ask == 1:
                    self.useful.append(useful)
                self._ask(request.row)
            case ProviderBusy() | AnswerLost():
                self.harvest.counts.retried += 1
                self.failures[request.key] += 1
                if self.failures[request.key] >= ROUNDS:
                    raise outcomes.given_up(Flight(request, ROUNDS), outcome)
            case _:
                raise self._fatal(request, outcome)

    def _fatal(self, request: Request, error: Exception) -> ProviderError:
        if isinstance(error, ImprintError):
            return ProviderError(f"provider {request.provider}: {error}")
        logger.error("provider %s broke", request.provider, exc_info=error)
        return outcomes.broken(request, error)

    def _rest_s(self) -> float:
        """Return how long to wait: short after a batch was handed in, longer as it ages."""
        now = time.time()
        newest = max((batch.at for batch in self._open()), default=now)
        return min(LONGEST_S, max(FIRST_S, (now - newest) / 10, self.resume - now))


def asker(
    rows: Sequence[Row], provider: Provider, provision: Provision, journal: Journal
) -> type[Generation] | type[Batching]:
    """Return what asks for ``rows``: in batches or one by one, as the terms say.

    Raises:
        ConfigError: They are to be asked for one by one, but open batches hold some of them.
    """
    if provision.batch:
        return Batching
    book = Batchbook(journal, provider.name, provider.model)
    book.sweep()
    held = {key for batch in book.open() for key in batch.keys}
    asks = range(1, 2 * provision.attempts + 1) if held else ()
    if count := sum(provider.request(row, ask).key in held for row in rows for ask in asks):
        raise ConfigError(
            f"batch: {count} of these conversations are in open batches at {provider.name}, which "
            "will be paid. Set batch to true in config/config.yaml and run again to collect them."
        )
    return Generation


def _missing(name: str, batch: Batch) -> ProviderError:
    """Return the error for a request without a result in a batch that has ended."""
    if batch.reason:
        return ProviderBusy(f"batch {name} {batch.reason}.")
    return AnswerLost(f"batch {name} ended without its result.")
