"""A server that says what a test wants said, and the browser that looks at it."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from playwright.sync_api import Browser, Page, sync_playwright

from imprint.serve.page import page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

CARD: dict[str, Any] = {
    "name": "Ada",
    "kind": "small language model",
    "creator": "Bo Lind",
    "facts": [
        {"id": "name", "statement": "I am Ada.", "questions": ["What is your name?"]},
        {
            "id": "size",
            "statement": "I have 561 million parameters.",
            "questions": ["How big?"],
            "n": 12,
            "accuracy": 0.75,
        },
    ],
    "unknown": ["birthday"],
    "languages": ["Spanish"],
    "evaluation": {
        "stage": "sft",
        "n": 400,
        "accuracy": 0.9475,
        "suites": {
            "paraphrase": {"n": 40, "accuracy": 0.925},
            "indirect": {"n": 40, "accuracy": 0.875},
            "rival claims": {"n": 40, "accuracy": 1.0},
        },
        "rival_rate": 0.0,
        "bleed_rate": 0.05,
    },
}


@dataclass
class Reply:
    """One answer of the stub."""

    pieces: tuple[str, ...] = ("I am ", "Ada.")
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0
    """Before each piece."""
    go: threading.Event | None = None
    """What a test sets when it has seen enough of the first ``free`` pieces."""
    free: int = 1
    error: str = ""
    """Sent after the pieces, in place of the end."""
    code: str | None = None
    """Of an error, where the status is one."""
    cut: bool = False
    """Whether the stream just ends after the pieces."""
    finish: str = "stop"
    room: dict[str, Any] = field(default_factory=dict)
    """What had no room, as the usage tells it."""


class Stub:
    """An OpenAI-compatible server that answers with ``replies`` in order, then with plain ones."""

    def __init__(self) -> None:
        self.reset()
        self.app = FastAPI()
        self.app.get("/")(self._page)
        self.app.get("/card")(self._card)
        self.app.get("/health")(lambda: {"status": "ok"})
        self.app.get("/v1/models")(self._models)
        self.app.post("/v1/chat/completions")(self._chat)

    def reset(self) -> None:
        """Forget what was asked and what was to be said."""
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.token = ""
        self.card, self.model = CARD, "ada"
        self.hung_up = 0

    def _page(self) -> Response:
        html, headers = page()
        return HTMLResponse(html, headers=headers)

    def _card(self, request: Request) -> Response:
        return self._refused(request) or JSONResponse(self.card)

    def _models(self, request: Request) -> Response:
        models = {"object": "list", "data": [{"id": self.model, "object": "model"}]}
        return self._refused(request) or JSONResponse(models)

    def _refused(self, request: Request) -> Response | None:
        if not self.token or request.headers.get("Authorization") == f"Bearer {self.token}":
            return None
        return JSONResponse({"error": {"message": "wrong token"}}, 401)

    async def _chat(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        self.requests.append(await request.json())
        reply = self.replies.pop(0) if self.replies else Reply()
        if self.requests[-1]["model"] != self.model:
            reply = Reply(status=404, error="no such model", code="model_not_found")
        if reply.status != 200:
            body = {"error": {"message": reply.error, "code": reply.code}}
            return JSONResponse(body, reply.status, headers=reply.headers)
        return StreamingResponse(
            self._stream(reply), media_type="text/event-stream", headers=reply.headers
        )

    async def _stream(self, reply: Reply) -> Any:
        try:
            for number, piece in enumerate(reply.pieces):
                await asyncio.sleep(reply.pause_s)
                while number >= reply.free and reply.go and not reply.go.is_set():
                    await asyncio.sleep(0.01)
                event = _event({"choices": [{"index": 0, "delta": {"content": piece}}]})
                for half in (event[: len(event) // 2], event[len(event) // 2 :]):
                    yield half
        except asyncio.CancelledError:
            self.hung_up += 1
            raise
        if reply.error:
            yield _event({"error": {"message": reply.error}})
        if reply.error or reply.cut:
            return
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
        usage: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": len(reply.pieces)}
        usage["imprint"] = reply.room
        yield _event({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


@contextlib.contextmanager
def serving(app: Any, *, port: int = 0) -> Iterator[str]:
    """Serve ``app`` on loopback, on any free port by default; yield its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; where it is missing skip the tests, but fail on continuous integration."""
    if CHROMIUM is None:
        missing = "Chromium is missing: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def answered(window: Page) -> str:
    """Wait until the last answer is complete; return it."""
    window.locator("article:last-of-type .answer[aria-busy=false]").wait_for()
    return window.locator("article:last-of-type .answer .text").inner_text()
