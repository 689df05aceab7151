"""A real server on loopback around a little model that never stops by itself."""

import contextlib
import http.client
import json
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import torch
import uvicorn

from imprint import serve
from imprint.engine import Engine
from imprint.model import Model
from imprint.serve import Settings, connection
from imprint.shape import ModelConfig
from imprint.tokenizer import Tokenizer
from waiting import eventually

CARD = {"name": "ada", "creator": "Bo"}
LONG = 3000
"""Tokens that take about two seconds to say."""


def talker(words: Tokenizer, *, context: int = 4096) -> Engine:
    """An engine that talks until its limit."""
    model = Model(ModelConfig(depth=1, vocabulary=words.vocabulary, context=context), seed=3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2, generator=generator)
    engine = Engine(model, words)
    engine.stop = frozenset()
    return engine


def ask(text: str, **more: Any) -> dict[str, Any]:
    """The body of a request with one question."""
    return {"messages": [{"role": "user", "content": text}], **more}


class Server:
    """A running server."""

    def __init__(self, url: str, runner: uvicorn.Server | None = None) -> None:
        self.url, self.v1, self.runner = url, f"{url}/v1", runner
        self.chat = f"{self.v1}/chat/completions"

    def stop(self) -> None:
        """Do what a SIGTERM does, and wait until nobody can connect any more."""
        runner = self.runner
        assert runner
        runner.should_exit = True
        servers = runner.servers
        eventually("none listens", lambda: not any(each.is_serving() for each in servers))

    def metric(self, name: str) -> float:
        """What /metrics says of ``name``."""
        with urllib.request.urlopen(f"{self.url}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.metric("imprint_live") == self.metric("imprint_waiting") == 0


@contextlib.contextmanager
def serving(engine: Engine, **settings: Any) -> Iterator[Server]:
    """Serve ``engine`` on any free port."""
    chosen = replace(Settings(), **settings)
    app = serve.app(engine, card=CARD, settings=chosen)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = connection.config(app, log_level="critical", timeout_graceful_shutdown=30)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    eventually("it has started", lambda: server.started)
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


@contextlib.contextmanager
def posted(server: Server, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    """Ask for an answer, and hand it over when its head is there."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    headers = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        with connection.getresponse() as response:
            yield response


@contextlib.contextmanager
def begun(server: Server, **more: Any) -> Iterator[http.client.HTTPResponse]:
    """Ask for a long stream, and hand it over when its first bytes are there."""
    body = ask("Who are you?", stream=True, max_tokens=LONG, **more)
    with posted(server, body) as response:
        assert response.status == 200 and response.read(20)
        yield response


def spoken(stream: str) -> str:
    """The text of the events of a stream, which ends well."""
    events = [line.removeprefix("data: ") for line in stream.splitlines() if line]
    assert events[-1] == "[DONE]"
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content", "") for choice in choices)
