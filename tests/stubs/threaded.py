"""An HTTP server in a thread of this process; ``with`` starts and stops it."""

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import Self

from aiohttp import web


class Threaded(ABC):
    """Base of the stubs: a subclass says in ``_begin`` what is served."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(timeout=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner, self.url = await self._begin()
        self._ready.set()
        await self._stop.wait()
        await asyncio.sleep(0.01)  # Python 3.11 forgets whom it lets in while it closes the door
        server = runner.server
        assert isinstance(server, web.Server)
        transports = [connection.transport for connection in server.connections]
        await runner.cleanup()
        for transport in transports:
            if transport:
                transport.abort()  # or it waits for a client that no longer reads

    @abstractmethod
    async def _begin(self) -> tuple[web.BaseRunner, str]:
        """Start to serve; return what does, and its URL."""


async def listening(runner: web.BaseRunner, port: int = 0) -> tuple[web.BaseRunner, str]:
    """Let ``runner`` listen on loopback, by default on a free port; return it with its URL."""
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=2048).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"
