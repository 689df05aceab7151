"""Whatever is sent, the server answers, and goes on answering."""

import contextlib
import json
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint.tokenizer import Tokenizer
from serve.hostile import requests
from serve.kit import Server, serving, talker
from waiting import eventually


@pytest.fixture(scope="module")
def server(words: Tokenizer) -> Iterator[Server]:
    with serving(talker(words, context=128), body_seconds=0.2) as server:
        yield server


def status(server: Server, request: bytes) -> int | None:
    """Send ``request``; return the status, None if the server just closes or waits for more."""
    host, port = urlsplit(server.url).netloc.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=0.4) as connection:
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(request)
            while b"\r\n" not in answer and (more := connection.recv(65536)):
                answer += more
    return int(answer.split(b" ", 2)[1]) if answer else None


def test_nothing_that_is_sent_is_answered_by_a_fault_of_the_server(server: Server) -> None:
    with urllib.request.urlopen(f"{server.url}/openapi.json") as response:
        openapi = json.load(response)
    seen: dict[int | None, int] = {}

    @settings(max_examples=300, suppress_health_check=list(HealthCheck))
    @given(requests(openapi))
    def sent(request: bytes) -> None:
        found = status(server, request)
        seen[found] = seen.get(found, 0) + 1
        assert found is None or found < 500

    sent()
    assert {200, 400, 415} <= set(seen), "some should be right, some wrong"
    eventually("idle", server.idle)
    assert server.metric("imprint_requests_total") > 100


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(min_size=1, max_size=300))
def test_noise_on_the_line_harms_nobody(server: Server, noise: bytes) -> None:
    found = status(server, noise + b"\r\n\r\n")
    assert found is None or found < 500
