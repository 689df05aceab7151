"""Many clients at once, clients that leave, and a server that is told to stop."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from imprint import decoding
from imprint.decoding import Batch
from imprint.engine import Engine
from imprint.serve import answers
from imprint.serve.service import Service
from imprint.tokenizer import Tokenizer
from imprint.voice import Voice
from serve.kit import LONG, Server, ask, begun, posted, serving, spoken, talker
from waiting import eventually


@pytest.fixture(scope="module")
def server(words: Tokenizer) -> Iterator[Server]:
    with serving(talker(words)) as server:
        yield server


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


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
    said = server.metric("imprint_tokens_out_total")
    with socket.create_connection(urlsplit(server.url).netloc.split(":")) as connection:  # type: ignore[arg-type]
        body = json.dumps(ask("Hi", stream=stream, max_tokens=LONG, n=4)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        eventually("four rows", lambda: server.metric("imprint_live") == 4)
    eventually("idle", server.idle)
    assert server.metric("imprint_tokens_out_total") - said < 4 * LONG, "they were not finished"
    assert server.metric("imprint_hung_up_total") == before + 1


def test_a_full_queue_says_when_to_come_again(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "ROWS", 2)
    with serving(talker(words), queue=3) as server, ThreadPoolExecutor() as pool:

        def told(n: int) -> tuple[int, str | None]:
            with posted(server, ask("Hi", max_tokens=2, n=n)) as response:
                return response.status, response.getheader("Retry-After")

        with begun(server), begun(server):
            first = pool.submit(told, 2)
            eventually("two wait", lambda: server.metric("imprint_waiting") == 2)
            assert told(2)[0] == 429, "one too many"
            fits = pool.submit(told, 1)
            eventually("three wait", lambda: server.metric("imprint_waiting") == 3)
            status, wait = told(1)
            assert status == 429 and 1 <= int(wait or 0) <= 60
        assert first.result()[0] == fits.result()[0] == 200
        eventually("idle", server.idle)


@contextlib.contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Keep prompts from being cut into tokens; yield what is waiting for it."""
    prompts, go, cutting = Engine.prompts, threading.Event(), []

    def slow(*arguments: Any, **named: Any) -> Any:
        cutting.append(arguments)
        assert go.wait(20)
        return prompts(*arguments, **named)

    monkeypatch.setattr(Engine, "prompts", slow)
    monkeypatch.setattr(answers, "QUICK", 0)
    try:
        yield cutting
    finally:
        go.set()


def test_places_are_taken_before_a_prompt_is_cut_into_tokens(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = talker(words)
    with serving(engine, queue=3) as server, ThreadPoolExecutor() as pool:

        def status(n: int) -> int:
            with posted(server, ask("Hi", max_tokens=2, n=n)) as response:
                return response.status

        with held_up(monkeypatch):
            taken = pool.submit(status, 2)
            eventually("two wait", lambda: server.metric("imprint_waiting") == 2)
            assert status(2) == 429, "one too many"
            fits = pool.submit(status, 1)
            eventually("three wait", lambda: server.metric("imprint_waiting") == 3)
        assert taken.result() == fits.result() == 200
        eventually("idle", server.idle)


def test_a_client_that_hangs_up_early_is_not_waited_for(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address: Any
    with serving(talker(words)) as server, held_up(monkeypatch) as cutting:
        address = urlsplit(server.url).netloc.split(":")
        body = json.dumps(ask("Hi", n=4)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        clients = [socket.create_connection(address) for _ in range(16)]
        for client in clients:
            client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        eventually("they wait", lambda: server.metric("imprint_waiting") == 64 and cutting)
        for client in clients:
            client.close()
        eventually("idle", server.idle)
        assert server.metric("imprint_hung_up_total") == 16
    assert len(cutting) < 16, "those that had not begun are left out"


def test_the_clock_runs_while_a_prompt_is_cut_into_tokens(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(talker(words), seconds=0.2) as server,
        held_up(monkeypatch),
        posted(server, ask("Hi")) as response,
    ):
        assert response.status == 429 and response.getheader("Retry-After")
        assert server.idle()


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
            tickets.append(service.reserve(1))
            service.submit(tickets[-1], [(request, Voice(request, words))])

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
        service.submit(service.reserve(1), [(request, Voice(request, words))])
        while not request.said:
            await asyncio.sleep(0.001)
        begun = time.monotonic()
        await service.stop(grace=grace)
        assert not service.healthy
        return len(request.said), time.monotonic() - begun

    assert asyncio.run(stopped(60))[0] == 200
    said, took = asyncio.run(stopped(0))
    assert said < 200 and took < 5


def test_a_server_that_stops_lets_a_stream_end_but_takes_no_more(words: Tokenizer) -> None:
    with serving(talker(words)) as server, begun(server) as response:
        server.stop()
        with pytest.raises(OSError), begun(server):
            pass
        text = response.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert len(spoken(text[text.index("data: ") :])) > LONG / 2
