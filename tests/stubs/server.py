"""The stub server: in a thread of a test, or as a process of its own.

with Stub(latency=0.01, script=("rate-limit", "ok")) as stub:
    ...  # talk to stub.base("openrouter"), then look at stub.count

python -m stubs.server --latency 0.2 --rate 0.1
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from stubs.account import Count, Settings
from stubs.app import App
from stubs.threaded import Threaded, listening

T = TypeVar("T")


class Stub(Threaded):
    """A stub in a thread of this process; ``with`` starts and stops it."""

    def __init__(self, **settings: Any) -> None:
        """Take the fields of `Settings`."""
        super().__init__()
        self.settings = Settings(**settings)
        self.app = App(self.settings)

    async def _begin(self) -> tuple[web.BaseRunner, str]:
        return await serving(self.app)

    def base(self, dialect: str) -> str:
        """Return the base URL that a client of ``openrouter``, ``openai`` or ``gemini`` takes."""
        return self.url + {"openrouter": "/api/v1", "openai": "/v1", "gemini": ""}[dialect]

    @property
    def count(self) -> Count:
        """What happened so far: a copy, taken between two steps of the server."""
        return self._inside(lambda: self.app.count.snapshot())

    def reset(self) -> None:
        """Forget everything that happened; the script starts again."""
        self._inside(self.app.reset)

    def _inside(self, call: Callable[[], T]) -> T:
        async def run() -> T:
            return call()

        if not self._thread.is_alive():
            return call()
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


async def serving(app: App, port: int = 0) -> tuple[web.BaseRunner, str]:
    """Start to serve on the loopback; return what stops it, and the URL."""
    server = web.Server(app.handle, handler_cancellation=True, access_log=None)
    return await listening(web.ServerRunner(server, shutdown_timeout=0.01), port)


def main() -> None:
    """Serve until interrupted; print where in one line of JSON."""
    parser = argparse.ArgumentParser(description="Each setting of stubs.account.Settings.")
    parser.add_argument("--port", type=int, default=0)
    for field in dataclasses.fields(Settings):
        option, default = f"--{field.name.replace('_', '-')}", field.default
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        elif isinstance(default, tuple):
            parse = _floats if field.name == "price" else _names
            parser.add_argument(option, type=parse, default=default, help="separated by commas")
        else:
            parser.add_argument(option, type=type(default), default=default)
    options = vars(parser.parse_args())
    port = options.pop("port")

    async def run() -> None:
        _, url = await serving(App(Settings(**options)), port)
        sys.stdout.write(json.dumps({"url": url}) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(run())


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _floats(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split(",")))


if __name__ == "__main__":
    main()
