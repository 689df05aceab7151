"""What rows of the plan have got so far: which answers can be used, and what to ask next."""

import logging
from collections.abc import Callable, Sequence

from imprint.errors import ProviderError
from imprint.generation import outcomes
from imprint.generation.journal import Journal, Kept
from imprint.generation.outcomes import Conclusion, Counts
from imprint.plan import Row
from imprint.providers import Provider, Reply, Request
from imprint.records import Conversation
from imprint.settings import Provision

logger = logging.getLogger("imprint")

Objection = Callable[[Conversation, Row], str | None]
"""Says in a word or two why messages may not be trained on; None if nothing is wrong with them."""

EXAMPLES = 3
"""Rejected conversations shown in the log, per reason."""


class Harvest:
    """The rows of one worker, and what became of them."""

    def __init__(
        self, provider: Provider, journal: Journal, provision: Provision, objection: Objection
    ) -> None:
        self.provider, self.journal = provider, journal
        self.provision, self.objection = provision, objection
        self.counts = Counts()
        self.fatal: ProviderError | None = None
        """Why there is no point in asking for more."""
        self._conclusions: dict[int, Conclusion] = {}
        self._strangers: set[str] = set()

    def sow(self, rows: Sequence[Row]) -> None:
        """Begin with ``rows``."""
        self._conclusions = {row.index: Conclusion(row) for row in rows}

    def conclusions(self, rows: Sequence[Row]) -> list[Conclusion]:
        """Return what became of each of ``rows``, in their order."""
        return [self._conclusions[row.index] for row in rows]

    def next_request(self, row: Row) -> Request | None:
        """Return what to ask for ``row``: past the answers in the journal, the first missing.

        None if one of them can be used, or there were as many as a row may take.
        """
        conclusion = self._conclusions[row.index]
        while conclusion.reason is not None and conclusion.asks < self._most(row):
            request = self.provider.request(row, conclusion.asks + 1)
            kept = self.journal.find(request.key)
            if kept is None:
                return request
            self.judge(request, kept)
        self.counts.done += 1
        return None

    def judge(self, request: Request, kept: Kept) -> bool:
        """Take in an answer; return whether it can be used."""
        conclusion, reply = self._conclusions[request.row.index], kept.reply
        conclusion.asks += 1
        conclusion.cost_usd += kept.cost_usd
        self._recognise(reply, request)
        conclusion.key = request.key
        conclusion.reason = reason = reply.flaw or self.objection(reply.messages, request.row)
        if reason is None:
            return True
        self.counts.rejected += 1
        self.counts.reasons[reason] += 1
        if self.counts.reasons[reason] <= EXAMPLES:
            logger.info("rejected (%s): %s", reason, reply.messages or "(no conversation)")
        return False

    def tell(self) -> None:
        """Report to the other workers, inside a transaction of the journal."""
        counts = self.counts
        self.journal.report(
            total=len(self._conclusions),
            done=counts.done,
            retried=counts.retried,
            rejected=counts.rejected,
        )

    def _most(self, row: Row) -> int:
        """Return how many answers ``row`` may take: more if a fact would lack it for its quota."""
        return self.provision.attempts * (2 if row.facts else 1)

    def _recognise(self, reply: Reply, request: Request) -> None:
        """Warn once of each model that answers in another's place."""
        if outcomes.same_model(reply.model, request.model) or reply.model in self._strangers:
            return
        self._strangers.add(reply.model)
        if self.provision.strict_model:
            self.fatal = outcomes.strange(reply.model, request)
        else:
            said = outcomes.stranger(reply.model, request)
            logger.warning("warning: %s; each conversation records who wrote it", said)
