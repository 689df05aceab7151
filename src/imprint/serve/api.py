"""The routes: OpenAI's chat API, and what a page, a probe and Prometheus want to know."""

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from imprint import __version__
from imprint.engine import Engine
from imprint.serve import Settings, room
from imprint.serve.answers import Asked, Stream, answered, queued
from imprint.serve.metrics import Metrics
from imprint.serve.page import page
from imprint.serve.protocol import ChatRequest, Refused, parse
from imprint.serve.service import Broken, Busy, HungUp, Service

logger = logging.getLogger("imprint")

PATHS = ("/", "/card", "/health", "/metrics", "/openapi.json", "/v1/chat/completions", "/v1/models")
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f"{meaning}: OpenAI's error object."}
    for status, meaning in {
        400: "Not such a request",
        401: "No token, or a wrong one",
        404: "No such model",
        408: "The body came too slowly",
        413: "The body is too long",
        415: "The body is not JSON",
        429: "All places are taken",
        500: "A fault of the server",
    }.items()
}
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "OpenAI's chat completion, or a stream of its chunks.",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}


class Counted:
    """Counts the requests that pass, by path and status."""

    def __init__(self, app: Any, *, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in PATHS else "other"

        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self.app(scope, receive, counted)


def build(engine: Engine, *, card: dict[str, Any], settings: Settings) -> FastAPI:
    """Return the application; the arguments are those of ``imprint.serve.app``."""
    service = Service(engine, queue=settings.queue, seconds=settings.seconds)
    metrics = Metrics(live=lambda: service.live, waiting=lambda: service.waiting)
    characters = room.most(engine)
    name, began = card.get("name", "imprint"), int(time.time())

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop(grace=0)  # the server has waited for its clients before

    app = FastAPI(
        title=f"{name}, served by imprint",
        version=__version__,
        description="A chat with a model that knows who it is. Speaks OpenAI's chat API.",
        lifespan=running,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service, app.state.metrics = service, metrics
    app.add_middleware(Counted, metrics=metrics)
    _explain_errors(app)
    bearer = HTTPBearer(auto_error=False)

    def allowed(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if settings.api_key is None:
            return
        token = shown.credentials if shown else ""
        if not secrets.compare_digest(token.encode(), settings.api_key.encode()):
            raise Refused(
                401,
                "this server wants its key: send the header Authorization: Bearer KEY",
                kind="authentication_error",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    guarded: Any = {"dependencies": [Depends(allowed)], "responses": ERRORS}
    schema = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    parts = schema.pop("$defs")
    model = {"id": name, "object": "model", "created": began, "owned_by": card.get("creator", "")}

    @app.post(
        "/v1/chat/completions",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema}},
            }
        },
        dependencies=[Depends(allowed)],
        responses=ANSWER | ERRORS,
    )
    async def chat(request: Request) -> Response:
        """Answer a conversation, at once or as a stream of server-sent events."""
        asked = Asked(parse(await _body(request, settings)), model=name)
        asked.check(settings)
        prepare = functools.partial(asked.prepare, engine, settings, characters=characters)
        try:
            await queued(asked, service, metrics, request.receive, prepare=prepare)
            metrics.tokens_in.inc(len(asked.prompt.ids))
            if asked.request.stream:
                return Stream(asked, service, metrics)
            return await answered(asked, service, metrics, request.receive)
        except HungUp:
            return Response(status_code=499)  # nobody reads it
        except (Busy, Broken) as error:
            raise _refused(error) from None

    @app.get("/v1/models", **guarded)
    async def models() -> dict[str, Any]:
        """List the one model there is."""
        return {"object": "list", "data": [model]}

    @app.get("/v1/models/{wanted:path}", **guarded)
    async def one_model(wanted: str) -> dict[str, Any]:
        """Describe the model."""
        if wanted != name:
            raise Refused(404, f"no model {wanted!r} here, only {name!r}", code="model_not_found")
        return model

    @app.get("/card", **guarded)
    async def about() -> dict[str, Any]:
        """Tell who the model should be, and which questions about itself it answers right."""
        return card

    @app.get("/health")
    @app.head("/health", include_in_schema=False)
    async def health() -> Response:
        """Tell whether requests are answered: 200, or 503."""
        healthy = service.healthy
        return JSONResponse({"status": "ok" if healthy else "stopping"}, 200 if healthy else 503)

    @app.get("/metrics", **guarded)
    async def numbers() -> Response:
        """Return counters in Prometheus's format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    @app.head("/", include_in_schema=False)
    async def home() -> Response:
        html, headers = page()
        return HTMLResponse(html, headers=headers)

    app.openapi().setdefault("components", {}).setdefault("schemas", {}).update(parts)
    return app


async def _body(request: Request, settings: Settings) -> bytes:
    """Return the body, which is JSON by its header and not too long."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send JSON, with the header Content-Type: application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.body_bytes:
                    raise Refused(413, f"the body is longer than {settings.body_bytes} bytes")
    except TimeoutError:
        raise Refused(408, f"the body took longer than {settings.body_seconds:g} s") from None
    return bytes(body)


def _refused(error: Busy | Broken) -> Refused:
    if isinstance(error, Busy):
        after = {"Retry-After": str(error.retry_after)}
        return Refused(
            429, str(error), kind="rate_limit_error", code="rate_limit_exceeded", headers=after
        )
    return Refused(500, f"{error}; ask again", kind="server_error")


def _explain_errors(app: FastAPI) -> None:
    """Give every error the form of OpenAI's."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status, headers=error.headers)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        found = Refused(error.status_code, str(error.detail))
        return JSONResponse(found.body, error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        found = Refused(500, "a fault of this server; its log tells more", kind="server_error")
        return JSONResponse(found.body, 500)
