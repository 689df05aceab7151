"""Ask a provider for a conversation per row of a plan: many at a time, each paid for once.

A row is asked for until an answer can be used. Every answer goes into the journal before anything
else happens with it; a row whose answers are there is not asked for again. What the provider
refuses to answer is asked again later, at the pace it allows.
"""

import asyncio
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from imprint.errors import AnswerLost, ImprintError, ProviderBusy, ProviderError
from imprint.generation import outcomes, pacing, probing
from imprint.generation.harvest import Harvest, Objection
from imprint.generation.journal import Journal, Kept
from imprint.generation.outcomes import Conclusion, Flight
from imprint.generation.prices import Tariff
from imprint.plan import Row
from imprint.providers import Provider, Reply, Request
from imprint.settings import Provision

logger = logging.getLogger("imprint")

TRIES = 8
"""Attempts at one request that end without an answer, rate limits not counted."""

PATIENCE_S = 900.0
"""Time without a single answer after which a provider that keeps refusing is given up."""

POLL_S = 0.05
"""Time between two looks at what other workers have left to do."""

GAP_S = 20e-6
"""Least time between two transactions for each request under way, so that answers share one."""

FEW = 8
"""Rows looked up, and answers judged, between two looks at what has landed: 0.2 ms each."""

GRACE_S = 10.0
"""Time that requests under way are given when the run is interrupted."""

TELL_S = 0.25
"""Time between two reports to the other workers."""


class Generation:
    """One worker's share of a run: its rows, asked of one provider."""

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
        """Prepare to ask.

        Args:
            provider: Whom to ask.
            journal: Where answers are kept.
            provision: The terms: budget, requests under way, answers a conversation may take.
            tariff: What the provider's model costs.
            objection: Says what is wrong with a conversation.
            watch: Called several times a second, to show how far the work is.
        """
        self.provider, self.journal, self.provision = provider, journal, provision
        self.tariff, self.watch = tariff, watch
        self.harvest = Harvest(provider, journal, provision, objection)
        self.pace = pacing.Pace(most=provision.in_flight)
        self.pace_name = f"pace of {provider.name} {provider.model}"
        self.unasked: deque[Row] = deque()
        self.waiting: deque[Flight] = deque()
        self.later: list[tuple[float, int, Flight]] = []
        """A heap: when to try again, a number that breaks ties, what."""
        self.flying: dict[str, Flight] = {}
        self.landed: deque[Flight] = deque()
        self.unjudged: deque[Flight] = deque()
        """What has landed and is in the journal."""
        self.alarm: asyncio.Future[None] | None = None
        self.doubt = outcomes.Doubt()
        self.probing: asyncio.Task[None] | None = None
        self.fatal: Exception | None = None
        self.deadline = float("inf")
        self.heard = self.looked = self.told = self.turned = time.time()

    async def run(self, rows: Sequence[Row]) -> list[Conclusion]:
        """Return what became of each of ``rows``, in their order.

        Raises:
            ProviderError: The provider wants no more requests, answers mostly nonsense, or the
                budget is used up. What was under way is waited for, and its answers are kept.
            StorageError: The journal may not be written.
        """
        self.harvest.sow(rows)
        self.unasked.extend(rows)
        while self.unasked or self.unjudged or self.waiting or self.later or self.flying:
            self._refill()
            if self.waiting and not self.probing:
                await self._probe()
            self.unjudged.extend(self._turn())
            await asyncio.sleep(0)  # what starts is sent before what has landed is judged
            for _ in range(min(FEW, len(self.unjudged))):
                self._settle(self.unjudged.popleft())
            self.watch()
            await self._rest()
            if self.fatal and time.time() > self.deadline:
                break
        if self.fatal:
            raise self.fatal
        return self.harvest.conclusions(rows)

    async def _probe(self) -> None:
        """Have the provider find out what its server can do; give up if interrupted."""
        book, terms, tariff = self.journal, self.provision, self.tariff
        asking = probing.probe(self.provider, journal=book, provision=terms, tariff=tariff)
        self.probing = asyncio.create_task(asking)
        await asyncio.wait({self.probing})
        if not self.probing.cancelled():
            self.probing.result()

    def stop(self, error: Exception) -> None:
        """Send nothing more; end with ``error`` once everything under way has come back."""
        self.fatal = self.fatal or error
        self.unasked.clear()
        self.waiting.clear()
        self.later.clear()
        self._wake()

    def interrupt(self) -> None:
        """Stop soon: what is under way gets a few seconds, since it will have to be paid."""
        self.deadline = min(self.deadline, time.time() + GRACE_S)
        if self.probing:
            self.probing.cancel()
        self.stop(ImprintError("Interrupted. What was answered is kept; run again to go on."))

    def _refill(self) -> None:
        """Queue more rows, a few at a time: looking each up takes 0.1 ms."""
        for _ in range(FEW):
            if self.unasked and len(self.waiting) < self.provision.in_flight:
                self._ask(self.unasked.popleft())

    def _ask(self, row: Row) -> None:
        """Queue the next request for ``row``, if it needs one."""
        request = self.harvest.next_request(row)
        if request is not None and not self.fatal:
            self.waiting.append(Flight(request))
        if self.harvest.fatal:
            self.stop(self.harvest.fatal)

    def _turn(self) -> list[Flight]:
        """Write down what has landed and start what may fly, in one transaction."""
        now = self.turned = time.time()
        starting: list[Flight] = []
        with self.journal.transaction():
            self.pace.load(self.journal.noted(self.pace_name), now)
            before = self.pace.shared()
            settled = [self.landed.popleft() for _ in range(len(self.landed))]
            for flight in settled:
                del self.flying[flight.request.key]
                self._book(flight, now)
            while self.later and self.later[0][0] <= now:
                self.waiting.append(heapq.heappop(self.later)[2])
            if not self.fatal and now >= self.pace.resume:
                self._reserve(starting)
            if self.pace.shared() != before:
                self.journal.note(self.pace_name, self.pace.shared())
            if now - self.told > TELL_S:
                self.told = now
                self.harvest.tell()
        for flight in starting:
            flight.sent = now
            flight.task = asyncio.create_task(self._fly(flight))
            self.flying[flight.request.key] = flight
        if now - self.looked > 5:
            self.looked = now
            self.journal.bury()
        return settled

    def _reserve(self, starting: list[Flight]) -> None:
        money = self.journal.money
        room = int(self.pace.allowed) - (money.flying - money.batched)
        while self.waiting and room > 0:
            flight = self.waiting[0]
            most, budget = self.tariff.most(flight.request), self.provision.budget_usd
            key = flight.request.key
            verdict = self.journal.reserve(key, most_usd=most, budget_usd=budget)
            if verdict == "dear":
                if money.flying == money.batched:
                    self.stop(outcomes.broke(money, budget_usd=budget, next_usd=most))
                return
            self.waiting.popleft()
            if verdict == "answered":
                self._ask(flight.request.row)
            elif verdict == "taken":
                self._delay(flight, 10 * POLL_S)
            else:
                starting.append(flight)
                room -= 1

    async def _fly(self, flight: Flight) -> None:
        try:
            flight.outcome = await self.provider.answer(flight.request)
            if not isinstance(flight.outcome, Reply):
                raise TypeError(f"answer should return a Reply, got {flight.outcome!r}")
        except Exception as error:
            flight.outcome = error
        self.landed.append(flight)
        self._wake()

    async def _rest(self) -> None:
        """Sleep until something lands, is due, or others may have made room."""
        if idle := self._idle_s():
            # An Event with a time limit would cost a task each time.
            loop = asyncio.get_running_loop()
            self.alarm = loop.create_future()
            timer = loop.call_later(idle, self._wake)
            await self.alarm
            timer.cancel()
        await asyncio.sleep(self.turned + GAP_S * len(self.flying) - time.time())

    def _wake(self) -> None:
        if self.alarm and not self.alarm.done():
            self.alarm.set_result(None)

    def _idle_s(self) -> float:
        more = self.unasked and len(self.waiting) < self.provision.in_flight
        left = self.waiting or self.later or self.flying
        if self.landed or self.unjudged or more or not left:
            return 0.0
        now = time.time()
        due = [self.later[0][0] - now] if self.later else []
        if self.waiting:
            due.append(max(POLL_S, self.pace.resume - now))
        return max(0.0, min([1.0, *due]))

    def _book(self, flight: Flight, now: float) -> None:
        """Write down how a flight ended, before anything else happens with it."""
        match flight.outcome:
            case Reply() as reply:
                cost = self.tariff.cost(reply)
                seconds = now - flight.sent
                self.journal.keep(flight.request, reply, cost_usd=cost, seconds=seconds)
                self.pace.served()
            case AnswerLost() as error:
                self.journal.lose(flight.request.key, str(error))
            case ProviderBusy() as error:
                self.journal.release(flight.request.key)
                if error.limit:
                    self.pace.refused(sent=flight.sent, now=now, wait_s=error.wait_s)
            case ImprintError():
                self.journal.release(flight.request.key)
            case error:  # it broke, perhaps after it was answered
                self.journal.lose(flight.request.key, repr(error))

    def _settle(self, flight: Flight) -> None:
        """Decide what follows from how a flight ended."""
        request, outcome, now = flight.request, flight.outcome, time.time()
        match outcome:
            case Reply():
                self.heard = now
                kept = Kept(outcome, self.tariff.cost(outcome))
                useful = self.harvest.judge(request, kept)
                self._doubt(request, self.doubt.arrived(useful, first=request.ask == 1))
                self._ask(request.row)
            case ProviderBusy() | AnswerLost():
                self.harvest.counts.retried += 1
                limit = isinstance(outcome, ProviderBusy) and outcome.limit
                flight.tries += not limit
                if isinstance(outcome, AnswerLost):
                    self._doubt(request, self.doubt.lost())
                if flight.tries >= TRIES or now - self.heard > PATIENCE_S:
                    self.stop(outcomes.given_up(flight, outcome))
                elif not self.fatal:
                    wait = outcome.wait_s if isinstance(outcome, ProviderBusy) else None
                    self._delay(flight, pacing.backoff_s(max(1, flight.tries), wait))
            case ImprintError():
                self.stop(ProviderError(f"provider {request.provider}: {outcome}"))
            case Exception():
                logger.error("provider %s broke", request.provider, exc_info=outcome)
                self.stop(outcomes.broken(request, outcome))

    def _delay(self, flight: Flight, seconds: float) -> None:
        heapq.heappush(self.later, (time.time() + seconds, id(flight), flight))

    def _doubt(self, request: Request, hopeless: bool) -> None:
        if hopeless:
            self.stop(outcomes.hopeless(request, self.harvest.counts.reasons, outcomes.WINDOW))
