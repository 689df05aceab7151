"""One connection of a client, which has only so long to say what it wants."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""Longest time for the head of a request; uvicorn would wait for ever, with a file open."""


def config(app: Any, **more: Any) -> uvicorn.Config:
    """Return how uvicorn serves ``app``; ``more`` is as uvicorn has it."""
    return uvicorn.Config(app, http=Connection, ws="none", access_log=False, **more)


class Connection(H11Protocol):
    """Closes itself where the head of a request does not come, or not to its end."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin the clock."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read; the clock runs from the first byte of a head."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle and not self.cycle.response_complete:
            self._stop()
        elif self.late is None:
            self.late = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop(self) -> None:
        if self.late:
            self.late.cancel()
            self.late = None
