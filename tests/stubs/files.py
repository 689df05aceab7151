"""A loopback server of files, which can behave as the hub does, and as badly as any."""

import asyncio
import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from aiohttp import web

from stubs.threaded import Threaded, listening


@dataclass
class Shelf:
    """What is served, and what happened.

    A path under /datasets/ redirects to the bytes on another host name, as on the hub; every other
    path holds them itself. Each request for bytes takes the next of ``faults[path]``: words out of
    drop (half of the body), corrupt, whole (Range is ignored), untold (no ETag), page (HTML) and
    slow, or a status (429, 503, ...).
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of each request for bytes."""
    tokens: Counter[str] = field(default_factory=Counter)
    """Which place, hub or bytes, was shown which Authorization how often."""


class FileServer(Threaded):
    """The server in a thread of this process; ``with`` starts and stops it."""

    def __init__(self, **files: bytes) -> None:
        super().__init__()
        self.shelf = Shelf(files={f"/{name}": body for name, body in files.items()})

    async def _begin(self) -> tuple[web.BaseRunner, str]:
        server = web.Server(self._handle, access_log=None)
        runner, url = await listening(web.ServerRunner(server, shutdown_timeout=0.01))
        self.port = runner.addresses[0][1]
        return runner, url

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        shelf, path = self.shelf, request.path
        if path.startswith("/datasets/"):
            shelf.tokens[f"hub {request.headers.get('Authorization')}"] += 1
            body = shelf.files.get(path)
            if body is None:
                return web.Response(status=404)
            return web.Response(
                status=302,
                headers={
                    "Location": f"http://localhost:{self.port}/bytes{path}?Signature=secret",
                    "X-Linked-ETag": f'"{hashlib.sha256(body).hexdigest()}"',
                    "X-Linked-Size": str(len(body)),
                },
            )
        path = path.removeprefix("/bytes")
        shelf.tokens[f"bytes {request.headers.get('Authorization')}"] += 1
        shelf.asked.append((path, request.headers.get("Range", "")))
        faults = shelf.faults[path]
        return await self._send(request, shelf.files.get(path), faults.pop(0) if faults else "")

    async def _send(
        self, request: web.BaseRequest, body: bytes | None, fault: str
    ) -> web.StreamResponse:
        if fault.isdigit() or body is None:
            return web.Response(status=int(fault or 404), headers={"Retry-After": "0.3"})
        if fault == "page":
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        headers = {} if "untold" in fault else {"ETag": tag}
        start = 0
        asked = request.headers.get("Range", "")
        if asked and "whole" not in fault and request.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        body = body[start:]
        if fault == "corrupt":
            body = bytes(byte ^ 1 for byte in body)
        headers["Content-Length"] = str(len(body))
        response = web.StreamResponse(status=206 if start else 200, headers=headers)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if "drop" in fault:
            assert request.transport is not None
            request.transport.close()
            return response
        if fault == "slow":
            await asyncio.sleep(1)
        await response.write(body[len(body) // 2 :])
        return response
