import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from imprint.errors import AnswerLost, ConfigError, ProviderBusy
from imprint.providers.wire import Garbled, Response, Unreachable, Wire, wait_s
from stubs.server import Stub

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def talk(url: str, *, timeout_s: float = 5.0, times: int = 1) -> list[Response]:
    async def run() -> list[Response]:
        headers = {"Authorization": "Bearer stub-key"}
        wire = Wire(url, headers=headers, timeout_s=timeout_s, secret="stub-key")
        try:
            return [await wire.post("/chat/completions", ASK) for _ in range(times)]
        finally:
            await wire.close()

    return asyncio.run(run())


def behaving(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> Response:
    """Talk to a server that does with a connection what ``answer`` does."""

    async def run() -> Response:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        wire = Wire(url, headers={}, timeout_s=5)
        try:
            return await wire.post("/", ASK)
        finally:
            await wire.close()
            server.close()
            await server.wait_closed()

    return asyncio.run(run())


def test_what_is_sent_arrives_and_what_comes_back_is_read() -> None:
    with Stub() as stub:
        (response,) = talk(stub.base("openai") + "/")
        assert response.status == 200
        assert response.json()["choices"][0]["finish_reason"] == "stop"
        assert stub.count.bodies[0] == ASK
        seen = stub.count.headers[0]
    assert seen["Content-Type"] == "application/json" and seen["User-Agent"] == "imprint"


def test_an_error_is_a_response_like_any_other() -> None:
    with Stub(script=("overloaded-503",)) as stub:
        assert talk(stub.base("openai"))[0].status == 503


def test_a_server_that_is_not_running_cost_nothing_and_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(Unreachable, match=f"{url} cannot be reached.*server is running") as error:
        talk(url)
    assert isinstance(error.value, ProviderBusy)


def test_a_server_without_tls_cost_nothing() -> None:
    with Stub() as stub, pytest.raises(Unreachable, match="cannot be reached"):
        talk(stub.base("openai").replace("http:", "https:"))


@pytest.mark.parametrize("fault", ["reset", "cut-body"])
def test_an_answer_that_breaks_off_is_lost(fault: str) -> None:
    with Stub(script=(fault,)) as stub, pytest.raises(AnswerLost, match="broke off"):
        talk(stub.base("openai"))


def test_an_answer_that_does_not_come_in_time_is_lost() -> None:
    with Stub(script=("hang",)) as stub, pytest.raises(AnswerLost, match=r"0\.1 s.*timeout_s"):
        talk(stub.base("openai"), timeout_s=0.1)


def test_a_server_that_does_not_speak_http_is_named() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")

    with pytest.raises(Garbled, match="does not answer in HTTP"):
        behaving(greet)


def test_a_page_instead_of_an_object_is_quoted_with_its_address() -> None:
    with Stub(script=("html",)) as stub:
        (response,) = talk(stub.base("openai"))
        with pytest.raises(Garbled, match=f"{stub.base('openai')}/chat.*200.*Bad gateway"):
            response.json()


def test_a_key_that_the_server_repeats_is_not_quoted() -> None:
    response = Response(200, {}, b"your key: stub-key", "http://here", secret="stub-key")
    assert response.text == "your key: [key]"
    assert "stub-key" not in repr(response)


def test_a_redirect_is_not_followed_so_the_key_stays() -> None:
    async def move(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 307 -\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
        )

    assert behaving(move).status == 307


def test_connections_are_used_again() -> None:
    with Stub() as stub:
        assert [response.status for response in talk(stub.base("openai"), times=3)] == [200] * 3


def test_a_large_body_is_sent_whole() -> None:
    async def run(url: str) -> int:
        wire = Wire(url, headers={"Authorization": "Bearer stub-key"}, timeout_s=5)
        long = {**ASK, "messages": [{"role": "user", "content": "x" * (2 << 20)}]}
        try:
            return (await wire.post("/chat/completions", long)).status
        finally:
            await wire.close()

    with Stub() as stub:
        assert asyncio.run(run(stub.base("openai"))) == 200


def test_a_get_returns_what_is_there() -> None:
    async def run(url: str) -> Any:
        wire = Wire(url, headers={"Authorization": "Bearer stub-key"}, timeout_s=5)
        try:
            return (await wire.get("/models")).json()
        finally:
            await wire.close()

    with Stub() as stub:
        assert asyncio.run(run(stub.base("openai")))["data"][0]["id"] == "stub-model"


@pytest.mark.parametrize("url", ["http://", "http://user:secret@host/v1", "http://host:port"])
def test_an_address_without_a_host_or_with_a_password_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url") as refused:
        Wire(url, headers={}, timeout_s=1)
    assert "secret" not in str(refused.value)


def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Stub() as stub:
        monkeypatch.setenv("http_proxy", stub.url)
        monkeypatch.delenv("no_proxy", raising=False)
        (response,) = talk("http://elsewhere.invalid/v1")  # only the proxy can answer
        assert response.status == 200
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert talk(stub.base("openai"))[0].status == 200


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"X-RateLimit-Reset": "30"}, None),
    ],
    ids=str,
)
def test_a_server_says_how_long_to_wait(headers: dict[str, str], wait: float | None) -> None:
    assert wait_s(headers) == wait


def test_a_server_says_until_when_to_wait() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert wait_s({"Retry-After": format_datetime(later, usegmt=True)}) == pytest.approx(90, abs=2)
    reset = str(int(1000 * later.timestamp()))
    assert wait_s({"X-RateLimit-Reset": reset}) == pytest.approx(90, abs=2)
