"""What a stub does with a request: admit it, count it, answer it or misbehave."""

import asyncio
import json
import socket
import struct
from typing import Any

from aiohttp import web

from stubs.account import Count, Settings
from stubs.batches import Batches
from stubs.dialects import Ask, Json, Refused, Reply, answer, known_model, read_chat, read_gemini
from stubs.dialects import reply as json_reply
from stubs.faults import REFUSALS, Script, refusal, said

_ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER that makes a close a reset."""


class App:
    """Everything but the sockets."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reset()

    def reset(self) -> None:
        """Forget everything that happened; the script starts again."""
        self.count = Count()
        self.script = Script(self.settings)
        self.batches = Batches(self.settings, self.count)
        self.under_way = 0
        self.tokens, self.filled = max(1.0, self.settings.per_second), 0.0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer any request."""
        path, model, verb = request.path, "", ""
        if path.startswith("/stub/"):
            return self._control(path)
        dialect = "openrouter" if path.startswith("/api/") else "openai"
        if path.startswith("/v1beta/"):
            dialect = "gemini"
            model, _, verb = path.partition("/models/")[2].partition(":")
        chat = path.endswith("/chat/completions") or verb == "generateContent"
        batch = "/batches" in path or verb == "batchGenerateContent"
        place = "chat" if chat else "batch" if batch else "models"
        text = await request.content.read() if request.method == "POST" else b""
        self.count.received += chat
        try:
            self._admit(dialect, request.headers)
            body = self._body(text) if request.method == "POST" else {}
            if place != "models" and body:
                self.count.see(body, request.headers, self.settings.keep)
            if chat:
                return await self._chat(request, self._ask(dialect, model, body))
            return await self._other(request, dialect, place, model, body)
        except Refused as refused:
            self.count.faults["refused"] += 1
            return _response(refused.reply(dialect))

    def _control(self, path: str) -> web.Response:
        if path == "/stub/reset":
            self.reset()
        return _response(json_reply(self.count.json()))

    def _admit(self, dialect: str, headers: Any) -> None:
        gemini = dialect == "gemini"
        shown = headers.get("x-goog-api-key" if gemini else "Authorization", "")
        if shown.removeprefix("Bearer ") == self.settings.key:
            return
        if gemini:
            reason = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
            raise Refused(400, "API key not valid.", extra=[reason])
        raise Refused(401, "Incorrect API key provided.", "invalid_api_key")

    def _body(self, text: bytes) -> Json:
        try:
            body = json.loads(text)
        except ValueError:
            raise Refused(400, "The body is not JSON.") from None
        if not isinstance(body, dict):
            raise Refused(400, "The body is not an object.")
        return body

    def _ask(self, dialect: str, model: str, body: Json) -> Ask:
        try:
            return read_gemini(model, body) if dialect == "gemini" else read_chat(dialect, body)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(400, f"The body is malformed: {error!r}") from None

    def _limit(self) -> str | None:
        """Return which limit this request hits, None if it may pass."""
        settings = self.settings
        if settings.cap and self.under_way >= settings.cap:
            return "cap"
        if settings.per_second:
            now = asyncio.get_running_loop().time()
            gained = (now - self.filled) * settings.per_second
            self.tokens, self.filled = min(self.tokens + gained, max(1, settings.per_second)), now
            if self.tokens < 1:
                return "quota"
            self.tokens -= 1
        return None

    async def _chat(self, request: web.BaseRequest, ask: Ask) -> web.StreamResponse:
        count = self.count
        limit = self._limit()
        if limit:
            count.faults[limit] += 1
            return _response(refusal("rate-limit", ask.dialect, self.settings.retry_after))
        count.asked[ask.identity] += 1
        kind = self.script.fault("chat", ask.identity, count.asked[ask.identity])
        mischief = said(ask, kind, self.settings)
        body, usd = answer(ask, mischief, self.settings)
        if kind != "ok":
            count.faults[kind] += 1
        lost = usd if self.settings.bills_lost else 0.0
        self.under_way += 1
        count.peak = max(count.peak, self.under_way)
        try:
            if kind in ("reset", "cut-body"):
                count.cost += lost
            response = await self._send(request, ask.dialect, kind, json_reply(body))
        except asyncio.CancelledError:  # the client went away
            if kind not in ("reset", "cut-body"):
                count.cost += lost
                count.gone += kind != "hang"
            raise
        finally:
            self.under_way -= 1
        if kind not in REFUSALS and kind != "error-in-choice":
            count.paid(ask.identity, usd)
        return response

    async def _other(
        self, request: web.BaseRequest, dialect: str, place: str, model: str, body: Json
    ) -> web.StreamResponse:
        route = f"{request.method} {request.path}"
        self.count.others[route] += 1
        kind = self.script.fault(place, route, self.count.others[route])
        if kind != "ok":
            self.count.faults[kind] += 1
        if kind in (*REFUSALS, "reset", "hang"):
            return await self._send(request, dialect, kind, json_reply({}))
        try:
            whole = self._information(dialect, request.method, request.path, model, body)
        except (KeyError, TypeError, AttributeError) as error:
            raise Refused(400, f"The body is malformed: {error!r}") from None
        status = 202 if (request.method, dialect, place) == ("POST", "openrouter", "batch") else 200
        return await self._send(request, dialect, kind, json_reply(whole, status))

    def _information(self, dialect: str, method: str, path: str, model: str, body: Json) -> Json:
        end = path.rpartition("/")[2]
        if dialect == "openrouter" and path in ("/api/v1/batches", "/api/beta/batches"):
            return self.batches.submit_openrouter(body)
        if end.endswith(":batchGenerateContent"):
            return self.batches.submit_gemini(model, body)
        if "/batches/" in path and method == "GET":
            return self.batches.poll(dialect, f"batches/{end}" if dialect == "gemini" else end)
        if path == "/api/v1/key":
            left = self.settings.credit - self.count.cost
            limits = {"limit": self.settings.credit, "limit_remaining": left}
            return {"data": {"label": "stub", **limits, "usage": self.count.cost}}
        if end == "models" and method == "GET":
            cards = [self._card(dialect, name) for name in self.settings.models]
            return {"models": cards} if dialect == "gemini" else {"object": "list", "data": cards}
        name = path.partition("/models/")[2]
        if name and method == "GET":
            known_model(dialect, name)
            return self._card(dialect, name)
        raise Refused(404, f"There is no {method} {path}.")

    def _card(self, dialect: str, name: str) -> Json:
        """Describe a model."""
        if dialect == "gemini":
            methods = ["generateContent", "batchGenerateContent"]
            limits = {"inputTokenLimit": 1048576, "outputTokenLimit": 65536}
            return {"name": f"models/{name}", **limits, "supportedGenerationMethods": methods}
        if dialect == "openai":
            return {"id": name, "object": "model", "created": 1700000000, "owned_by": "stub"}
        prices = [f"{usd / 1e6:.10f}" for usd in self.settings.price]
        pricing = {"prompt": prices[0], "completion": prices[1]}
        modes = ["max_tokens", "response_format", "structured_outputs"]
        return {
            "id": name,
            "context_length": 131072,
            "pricing": pricing,
            "supported_parameters": modes,
        }

    async def _send(
        self, request: web.BaseRequest, dialect: str, kind: str, whole: Reply
    ) -> web.StreamResponse:
        """Send ``whole`` unless ``kind`` forbids; raises CancelledError if it does not arrive."""
        transport = request.transport
        if kind in REFUSALS:
            if REFUSALS[kind] not in (402, 403, 429):
                await asyncio.sleep(self.settings.latency)
            return _response(refusal(kind, dialect, self.settings.retry_after))
        if kind == "hang":
            await asyncio.Event().wait()
        if kind != "reset":
            await asyncio.sleep(self.settings.latency * (4 if kind == "slow" else 1))
        if transport is None or transport.is_closing():
            raise asyncio.CancelledError
        if kind == "reset":
            linger = (socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            transport.get_extra_info("socket").setsockopt(*linger)
            transport.abort()
            raise asyncio.CancelledError
        if kind == "cut-body":
            length = {"Content-Length": str(len(whole.body))}
            cut = web.StreamResponse(status=whole.status, headers={**whole.headers, **length})
            await cut.prepare(request)
            await cut.write(whole.body[: len(whole.body) // 2])
            transport.close()
            raise asyncio.CancelledError
        return _response(whole)


def _response(whole: Reply) -> web.Response:
    return web.Response(status=whole.status, body=whole.body, headers=whole.headers)
