"""Which batches are open, in the journal: what they hold stays reserved when their worker dies."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic_core import to_json

from imprint.generation.journal import Journal
from imprint.providers import Request

logger = logging.getLogger("imprint")

NOBODY = 0
"""The worker of requests in batches: it never dies, so they are never taken for lost."""

MOST, MOST_BYTES = 1000, 15_000_000
"""Largest batch, in requests and in bytes: Gemini takes 20 MB."""

FORM_BYTES = 4096
"""What a request takes beyond its prompt, at most: the form of the answer, mainly."""


@dataclass(frozen=True)
class Open:
    """A batch whose results nobody has collected yet."""

    name: str
    at: float
    """When it was handed in, in seconds since 1970."""
    keys: list[str]
    """Of its requests that have no result yet."""


class Batchbook:
    """The batches of one model, shared by all workers."""

    def __init__(self, journal: Journal, provider: str, model: str) -> None:
        self.journal, self.about = journal, (provider, model)

    def hold(self, keys: list[str]) -> None:
        """Note, inside a transaction, that reserved requests are about to be handed in."""
        worker, now = self.journal.worker, time.time()
        for key in keys:
            entry = (key, "", *self.about, worker, now)
            self.journal.db.execute("INSERT INTO batched VALUES (?, ?, ?, ?, ?, ?)", entry)
            self._assign(key, NOBODY)
        self.journal.money.batched += len(keys)

    def call(self, name: str) -> None:
        """Note, inside a transaction, that what this worker handed in was taken as ``name``."""
        update = "UPDATE batched SET batch = ? WHERE batch = '' AND worker = ?"
        self.journal.db.execute(update, (name, self.journal.worker))

    def open(self) -> list[Open]:
        """Return the batches that were taken and not collected, oldest first."""
        found: dict[str, Open] = {}
        query = (
            "SELECT batch, at, key FROM batched WHERE batch != '' AND provider = ? AND model = ?"
            " ORDER BY at, batch"
        )
        for name, at, key in self.journal.db.execute(query, self.about):
            found.setdefault(name, Open(name, at, [])).keys.append(key)
        return list(found.values())

    def attend(self, name: str) -> None:
        """Note, inside a transaction, that this worker asks after a batch."""
        update = "UPDATE batched SET worker = ? WHERE batch = ?"
        self.journal.db.execute(update, (self.journal.worker, name))

    def take(self, key: str) -> bool:
        """Make a request this worker's own, inside a transaction; False if it is in no batch."""
        gone = self.journal.db.execute("DELETE FROM batched WHERE key = ?", (key,)).rowcount
        if gone:
            self._assign(key, self.journal.worker)
            self.journal.money.batched -= 1
        return bool(gone)

    def sweep(self) -> None:
        """Take for lost what dead workers were handing in, and say so.

        The provider may have taken it, but its name for the batch is not known.
        """
        self.journal.bury()
        query = (
            "SELECT key FROM batched WHERE batch = ''"
            " AND worker NOT IN (SELECT id FROM workers WHERE ended = 0)"
        )
        with self.journal.transaction():
            keys = [key for (key,) in self.journal.db.execute(query)]
            for key in keys:
                self.take(key)
                self.journal.lose(key, "its process died while the batch was handed in")
        if keys:
            logger.warning(
                "warning: %d requests were being handed in as a batch when their process died. "
                "They may have been taken: they count as spent at their most, and are asked again.",
                len(keys),
            )

    def others(self) -> bool:
        """Tell whether another worker that lives has anything under way."""
        query = (
            "SELECT 1 FROM (SELECT worker FROM flights UNION SELECT worker FROM batched)"
            " JOIN workers ON id = worker WHERE ended = 0 AND id != ? LIMIT 1"
        )
        return self.journal.db.execute(query, (self.journal.worker,)).fetchone() is not None

    def _assign(self, key: str, worker: int) -> None:
        self.journal.db.execute("UPDATE flights SET worker = ? WHERE key = ?", (worker, key))


def portions(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Yield ``requests`` in portions that are no larger than a batch may be."""
    portion: list[Request] = []
    size = 0
    for request in requests:
        own = len(to_json(request.system)) + len(to_json(request.user)) + FORM_BYTES
        if portion and (len(portion) == MOST or size + own > MOST_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(request)
        size += own
    if portion:
        yield portion
