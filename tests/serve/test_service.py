"""Many clients at once, clients that leave, and a server that is told to stop."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from imprint import decoding
from imprint.decoding import Batch
from imprint.engine import Engine
from imprint.serve.service import Service
from imprint.tokenizer import Tokenizer
from imprint.voice import Voice
from serve.kit import LONG, Server, ask, serving, spoken, talker
from waiting import eventually


@pytest.fixture(scope="module")
def server(words: Tokenizer) -> Iterator[Server]:
    with serving(talker(words)) as server:
        yield server


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@contextlib.contextmanager
def begun(server: Server, **more: Any) -> Iterator[http.client.HTTPResponse]:
    """Ask for a long stream, and hand it over when its first bytes are there."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    body = json.dumps(ask("Who are you?", stream=True, max_tokens=LONG, **more))
    headers = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", body, headers)
        with connection.getresponse() as response:
            assert response.status == 200 and response.read(20)
            yield response


def test_64_streams_at_once_say_what_each_says_alone(server: Server, words: Tokenizer) -> None:
    questions = [f"Who are you, {number}?" for number in range(64)]
    conversations: Any = [[{"role": "user", "content": text}] for text in questions]
    alone = talker(words).answer(conversations, max_tokens=60)

    async def all_of_them() -> list[str]:
        async with clients() as session:

            async def one(text: str) -> str:
                body = ask(text, stream=True, max_tokens=60)
                async with session.post(server.chat, json=body) as response:
                    assert response.status == 200
                    return spoken(await response.text())

            return await asyncio.gather(*map(one, questions))

    assert asyncio.run(all_of_them()) == alone
    assert server.idle()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_rows(server: Server, stream: bool) -> None:
    before = server.metric("imprint_hung_up_total")
    with socket.create_connection(urlsplit(server.url).netloc.split(":")) as connection:  # type: ignore[arg-type]
        body = json.dumps(ask("Hi", stream=stream, max_tokens=LONG, n=4)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        eventually("four rows", lambda: server.metric("imprint_live") == 4)
    gone = time.monotonic()
    eventually("idle", server.idle)
    assert time.monotonic() - gone < 1, "long before the answer would have been finished"
    assert server.metric("imprint_hung_up_total") == before + 1


def test_a_full_queue_says_when_to_come_again(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "ROWS", 2)
    with serving(talker(words), queue=3) as server:

        async def rest() -> list[tuple[int, dict[str, str]]]:
            async with clients() as session:

                async def one(n: int, wait: float) -> tuple[int, dict[str, str]]:
                    await asyncio.sleep(wait)
                    body = ask("Hi", max_tokens=2, n=n)
                    async with session.post(server.chat, json=body) as response:
                        return response.status, dict(response.headers)

                return [*await asyncio.gather(one(2, 0), one(2, 0.2), one(1, 0.4), one(1, 0.6))]

        with begun(server), begun(server):
            first, too_many, fits, full = asyncio.run(rest())
        assert [first[0], too_many[0], fits[0], full[0]] == [200, 429, 200, 429]
        assert 1 <= int(full[1]["Retry-After"]) <= 60
        eventually("idle", server.idle)


def test_500_connections_get_an_answer_or_a_no(server: Server) -> None:
    async def all_of_them() -> list[int]:
        async with clients() as session:

            async def one() -> int:
                async with session.post(server.chat, json=ask("Hi", max_tokens=40)) as response:
                    await response.read()
                    return response.status

            return await asyncio.gather(*(one() for _ in range(500)))

    statuses = asyncio.run(all_of_them())
    assert set(statuses) == {200, 429} and statuses.count(200) >= 64
    eventually("idle", server.idle)


def test_an_answer_is_cut_when_its_time_is_up(words: Tokenizer) -> None:
    with serving(talker(words), seconds=0.25) as server, begun(server) as response:
        text = response.read().decode()
        assert '"finish_reason":"length"' in text and text.endswith("data: [DONE]\n\n")
        assert 0 < server.metric("imprint_tokens_out_total") < LONG


def test_a_request_that_never_had_its_turn_is_told_to_come_again(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "ROWS", 1)
    engine = talker(words)

    async def both() -> list[Any]:
        service = Service(engine, queue=2, seconds=0.2)
        service.start()
        [prompt] = engine.prompts([[{"role": "user", "content": "Hi"}]], max_tokens=LONG)
        tickets = []
        for _ in range(2):
            request = engine.request(prompt, max_tokens=LONG)
            tickets.append(service.submit([(request, Voice(request, words))]))

        async def last(ticket: Any) -> Any:
            try:
                async for told in ticket.said():
                    found = told[-1][1].finished
                return found
            except Exception as error:
                return type(error).__name__

        found = await asyncio.gather(*map(last, tickets))
        await service.stop(grace=0)
        return found

    assert asyncio.run(both()) == ["length", "Busy"]


def test_after_a_breakdown_the_next_request_is_answered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Batch.step

    def broken(batch: Batch) -> None:
        monkeypatch.setattr(Batch, "step", step)
        raise RuntimeError("out of memory")

    with begun(server) as response:
        monkeypatch.setattr(Batch, "step", broken)
        told = response.read().decode()
    assert '"type":"server_error"' in told and "[DONE]" not in told
    with begun(server):
        pass
    eventually("idle", server.idle)


def test_told_to_stop_the_service_finishes_what_it_can(words: Tokenizer) -> None:
    engine = talker(words)

    async def stopped(grace: float) -> tuple[int, float]:
        service = Service(engine, queue=4, seconds=60)
        service.start()
        [prompt] = engine.prompts([[{"role": "user", "content": "Hi"}]], max_tokens=200)
        request = engine.request(prompt, max_tokens=200)
        service.submit([(request, Voice(request, words))])
        while not request.said:
            await asyncio.sleep(0.001)
        begun = time.monotonic()
        await service.stop(grace=grace)
        assert not service.healthy
        return len(request.said), time.monotonic() - begun

    assert asyncio.run(stopped(20))[0] == 200
    said, took = asyncio.run(stopped(0))
    assert said < 200 and took < 2


def test_a_server_that_stops_lets_a_stream_end_but_takes_no_more(words: Tokenizer) -> None:
    with serving(talker(words)) as server, begun(server) as response:
        server.stop()
        with pytest.raises(OSError), begun(server):
            pass
        text = response.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert len(spoken(text[text.index("data: ") :])) > LONG / 2


def serve_it(results: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from imprint.cli import main; main()", "serve"]
    return subprocess.Popen(
        [*command, "--port=0", f"--checkpoint={results / 'sft.pt'}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_the_server_lets_a_stream_end(results: Path, told: signal.Signals) -> None:
    process = serve_it(results)
    assert process.stdout
    try:
        url = process.stdout.readline().split(" answers at ")[1].split(",")[0]
        curl = process.stdout.readline()
        assert f"curl {url}/v1/chat/completions -H" in curl
        with begun(Server(url), n=8) as stream:
            process.send_signal(told)
            assert stream.read().decode().endswith("data: [DONE]\n\n")
        assert process.wait(15) == (0 if told == signal.SIGINT else -told)
        assert process.stderr and process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def test_open_to_other_machines_without_a_key_it_warns(results: Path) -> None:
    process = serve_it(results, "--host", "0.0.0.0")
    assert process.stdout
    try:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
        assert said.startswith(
            "warning: 0.0.0.0 is open to other machines, and no key is asked for"
        )
    finally:
        process.kill()


def test_a_port_that_is_taken_is_named(results: Path, engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve_it(results, "--port", str(port))
        assert process.wait(60) == 1
        assert f"error: 127.0.0.1:{port}: Address already in use" in process.communicate()[1]
