"""What the tests of the network providers share: a tiny identity, and servers that misbehave."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from imprint.identity import Identity
from imprint.plan import Row
from imprint.providers import Request
from imprint.providers.chat import Chat
from imprint.records import Conversation
from imprint.settings import Provision

T = TypeVar("T")

KEY = "stub-key"

WHO = Identity.model_validate(
    {
        "name": "Ada",
        "kind": "helper",
        "creator": "Bo",
        "description": "A helper.",
        "facts": [{"id": "name", "statement": "My name is Ada.", "expect": [["Ada"]]}],
    }
)

ROW = Row(
    index=7,
    strategy="direct",
    facts=("name",),
    subject=None,
    turns=1,
    persona="a student",
    register="terse",
    typos=False,
    opener="",
    seed=2**31 + 5,
)

ANSWER: dict[str, Conversation] = {
    "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
}


def request(provider: Chat, row: Row = ROW) -> Request:
    """Return a request whose body can be written down in a test."""
    return Request(row, 1, provider.name, provider.model, "Be Ada.", "Who?", 340)


def using(
    kind: type[Chat], task: Callable[[Any], Awaitable[T]], *, mode: Any = None, **provision: Any
) -> T:
    """Return what ``task`` makes of a provider, which is closed thereafter."""

    async def run() -> T:
        provider = kind(WHO, Provision(**provision))
        provider.mode = mode
        try:
            return await task(provider)
        finally:
            await provider.close()

    return asyncio.run(run())


def answer(kind: type[Chat], base_url: str, *, mode: Any = "json_schema", **provision: Any) -> Any:
    """Return the reply to one request, without a probe unless ``mode`` is None."""

    async def task(provider: Chat) -> Any:
        return await provider.answer(provider.request(ROW))

    return using(kind, task, mode=mode, base_url=base_url, **provision)


class Canned:
    """A server of the loopback that answers every request alike, or not as HTTP says."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> None:
        """Take an answer: text is sent as it is, anything else as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        named = {"Content-Length": str(len(text.encode())), "Connection": "close"}
        named |= headers or {}
        lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in named.items())]
        self.raw = "\r\n".join([*lines, "", text]).encode()
        self.seen: list[bytes] = []

    async def serve(self, kind: type[Chat], path: str, mode: Any, **provision: Any) -> Any:
        """Return the reply of a provider that asks this server once."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}{path}"
        provider = kind(WHO, Provision(base_url=url, **provision))
        provider.mode = mode
        try:
            return await provider.answer(provider.request(ROW))
        finally:
            await provider.close()
            server.close()
            await server.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        self.seen.append(head + await reader.readexactly(length))
        writer.write(self.raw)
        await writer.drain()
        writer.close()


def canned(
    kind: type[Chat],
    status: int,
    body: object,
    headers: Mapping[str, str] | None = None,
    *,
    mode: Any = "json_schema",
    path: str = "/v1",
    **provision: Any,
) -> Any:
    """Return the reply that a provider makes of one answer of a server, whatever it is."""
    return asyncio.run(Canned(status, body, headers).serve(kind, path, mode, **provision))
