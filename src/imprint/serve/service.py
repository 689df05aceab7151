"""One batch for all clients: a thread steps it, an event loop talks to them.

The thread owns the batch and everything in it. The loop puts jobs into its inbox and gets what
they say by ``call_soon_threadsafe``, once a step for all of them together.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from imprint.decoding import Chance, Request
from imprint.engine import Engine
from imprint.voice import Voice

logger = logging.getLogger("imprint")

JOIN_TOKENS = 256
"""Tokens of prompts that are read between two steps: the others wait for their next token."""
PIECES_PER_S = 600
"""Pieces of answers sent, of all clients together: one stream gets every token, each of 64 a piece
nine times a second. One of a single token each would take a third of a core."""


class Busy(Exception):
    """Everything is taken; ``retry_after`` is a guess of the seconds until something is free."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"all places are taken. Ask again in {retry_after} s.")
        self.retry_after = retry_after


class HungUp(Exception):
    """The client is gone."""


class Broken(Exception):
    """The batch broke down; what was in it is lost."""


@dataclass(frozen=True)
class Said:
    """What a job has said since the last time."""

    text: str
    chances: list[Chance]
    finished: str | None
    """Why it is at its end, as OpenAI calls it; None if it goes on."""


class Ticket:
    """What a client waits for: one answer or several."""

    def __init__(self, places: int, *, deadline: float) -> None:
        """Prepare for ``places`` answers that are cut at ``deadline``, by ``time.monotonic``."""
        self.news: asyncio.Queue[tuple[int, Said] | Exception] = asyncio.Queue()
        self.reserved = places
        """Places in the queue that no jobs have yet."""
        self.jobs: list[Job] = []
        self.deadline = deadline

    async def said(self) -> AsyncIterator[list[tuple[int, Said]]]:
        """Yield what the answers have said, by their numbers, until all are finished.

        Raises:
            Busy: Time was up before there was a row.
            Broken: The batch broke down.
            HungUp: Put into ``news`` by whoever notices.
        """
        left = len(self.jobs)
        while left:
            several = [await self.news.get()]
            while not self.news.empty():
                several.append(self.news.get_nowait())
            told = []
            for said in several:
                if isinstance(said, Exception):
                    raise said
                told.append(said)
            left -= sum(said.finished is not None for _, said in told)
            yield told


@dataclass(eq=False)
class Job:
    """One answer on its way."""

    request: Request
    voice: Voice
    ticket: Ticket
    index: int
    next_piece: float = 0.0


class Service:
    """The batch, its thread, and the queue before it."""

    def __init__(self, engine: Engine, *, queue: int, seconds: float) -> None:
        """Prepare to answer; ``start`` begins.

        Args:
            engine: Whose model answers.
            queue: Most jobs that wait.
            seconds: Longest time for a job.
        """
        self.engine, self.queue, self.seconds = engine, queue, seconds
        self.batch = engine.batch()
        self._wake = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._reserved = 0
        self._live: dict[Request, Job] = {}
        self._cancelled: list[Job] = []
        self._closing = False
        self._answer_s = 1.0  # how long answers took lately, for the guess in Busy
        self._thread: threading.Thread | None = None

    @property
    def live(self) -> int:
        """Jobs in the batch."""
        return len(self._live)

    @property
    def waiting(self) -> int:
        """Places in the queue that are taken."""
        return len(self._waiting) + self._reserved

    @property
    def healthy(self) -> bool:
        """Whether jobs are taken."""
        return self._thread is not None and self._thread.is_alive() and not self._closing

    def start(self) -> None:
        """Begin, inside a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        self._thread.start()

    def reserve(self, places: int) -> Ticket:
        """Take places in the queue for answers that belong together; all of them or none.

        Whoever gets the ticket has to ``submit`` or to ``release`` it.

        Raises:
            Busy: The queue has not as many, or the service is about to stop.
        """
        with self._wake:
            if self._closing or self.waiting + places > self.queue:
                raise self.busy()
            self._reserved += places
        return Ticket(places, deadline=time.monotonic() + self.seconds)

    def submit(self, ticket: Ticket, pairs: Sequence[tuple[Request, Voice]]) -> None:
        """Queue a request for each place of ``ticket``.

        Raises:
            Busy: The service is about to stop.
        """
        with self._wake:
            if self._closing:
                raise self.busy()
            ticket.jobs = [
                Job(request, voice, ticket, index) for index, (request, voice) in enumerate(pairs)
            ]
            self._unreserve(ticket)
            self._waiting += ticket.jobs
            self._wake.notify()

    def release(self, ticket: Ticket) -> None:
        """Give back the places of ``ticket``: its jobs have left before the next step."""
        with self._wake:
            self._unreserve(ticket)
            self._cancel(ticket.jobs)

    def busy(self) -> Busy:
        """Return the error that tells a client to come again."""
        return Busy(max(1, min(60, round(self._answer_s))))

    async def stop(self, *, grace: float) -> None:
        """Take no more jobs, wait up to ``grace`` seconds for those there are, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        until = time.monotonic() + grace
        while (self._live or self._waiting) and time.monotonic() < until:
            await asyncio.sleep(0.02)
        with self._wake:
            self._cancel([*self._live.values(), *self._waiting])
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _unreserve(self, ticket: Ticket) -> None:
        self._reserved -= ticket.reserved
        ticket.reserved = 0

    def _cancel(self, jobs: Iterable[Job]) -> None:
        self._cancelled += jobs
        self._wake.notify()

    # ---- in the thread ----

    def _run(self) -> None:
        while True:
            try:
                with self.batch.calm:
                    return self._work()
            except Exception:
                logger.exception("the batch broke down; it begins anew")
                self._fail()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._live or self._cancelled or self._closing):
                    self._wake.wait()
                if self._closing and not (self._waiting or self._live):
                    return
                cancelled, self._cancelled = self._cancelled, []
            self._drop(cancelled)
            self._join()
            self.batch.step()
            self._tell(self._live.values())

    def _drop(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            self.batch.leave(job.request)
            if job in self._waiting:
                self._waiting.remove(job)
            elif self._live.pop(job.request, None) is None:
                continue  # it was finished
            self._tell([job])

    def _join(self) -> None:
        room = JOIN_TOKENS
        while self._waiting and room > 0:
            job = self._waiting.popleft()
            if time.monotonic() > job.ticket.deadline:
                self._send([(job, self.busy())])
                continue
            self._live[job.request] = job
            if not self.batch.join(job.request):
                del self._live[job.request]
                self._waiting.appendleft(job)
                return
            room -= len(job.request.prompt)
            self._tell([job])

    def _tell(self, jobs: Iterable[Job]) -> None:
        now, pause = time.monotonic(), len(self._live) / PIECES_PER_S
        news: list[tuple[Job, Said | Exception]] = []
        for job in list(jobs):
            if now > job.ticket.deadline:
                self.batch.leave(job.request)
            if not (job.request.done or job.voice.stops or now >= job.next_piece):
                continue
            piece, finished = job.voice.piece(), job.voice.finished
            if piece.text or finished:
                job.next_piece = now + pause
                news.append((job, Said(piece.text, piece.chances, finished)))
            if finished:
                self.batch.leave(job.request)
                if self._live.pop(job.request, None):
                    took = now - job.ticket.deadline + self.seconds
                    self._answer_s += (took - self._answer_s) / 10
        self._send(news)

    def _fail(self) -> None:
        lost, self._live = self._live, {}
        self.batch = self.engine.batch()
        self._send([(job, Broken("the engine broke down")) for job in lost.values()])

    def _send(self, news: Sequence[tuple[Job, Said | Exception]]) -> None:
        if news:
            self._loop.call_soon_threadsafe(_deliver, news)


def _deliver(news: Sequence[tuple[Job, Said | Exception]]) -> None:
    for job, said in news:
        told = said if isinstance(said, Exception) else (job.index, said)
        job.ticket.news.put_nowait(told)
