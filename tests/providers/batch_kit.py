"""A server of the loopback that answers in batches: what it is told to, one answer a request."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from imprint.plan import rows
from imprint.providers import Request
from imprint.providers.chat import Chat
from imprint.settings import Provision
from providers.chat_kit import WHO

T = TypeVar("T")

ROWS = rows(WHO, seed=1, start=0, stop=3)


class Seen(NamedTuple):
    """What the server was asked."""

    method: str
    path: str
    body: Any


def told(
    kind: type[Chat],
    answers: list[tuple[int, object]],
    task: Callable[[Any, list[Request]], Awaitable[T]],
    *,
    under: str = "",
    **provision: Any,
) -> tuple[T, list[Seen]]:
    """Return what ``task`` makes of a provider whose server gives ``answers``, and its requests."""
    seen: list[Seen] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        text = await request.content.read()
        seen.append(Seen(request.method, request.path, json.loads(text) if text else None))
        status, body = answers[len(seen) - 1]
        return web.json_response(body, status=status)

    async def run() -> T:
        runner = web.ServerRunner(web.Server(handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}{under}"
        provider = kind(WHO, Provision(base_url=url, batch=True, **provision))
        provider.mode = "json_schema"
        try:
            return await task(provider, [provider.request(row) for row in ROWS])
        finally:
            await provider.close()
            await runner.cleanup()

    return asyncio.run(run()), seen


async def submitted(provider: Chat, requests: list[Request]) -> str:
    """Hand in three requests."""
    return await provider.submit(requests)
