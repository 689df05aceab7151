"""`imprint serve`: its process, its address, and connections that ask for nothing."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from imprint.commands import serving as command
from imprint.errors import ConfigError
from imprint.serve import connection
from imprint.tokenizer import Tokenizer
from serve.kit import Server, begun, serving, talker


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
        assert process.wait(60) == (0 if told == signal.SIGINT else -told)
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


def test_the_server_takes_as_many_files_as_it_may(results: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 500), hard))
    try:
        process = serve_it(results)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert process.stdout
    try:
        process.stdout.readline()
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
    finally:
        process.kill()
        process.communicate()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_address_of_ipv6_is_served_too(results: Path) -> None:
    process = serve_it(results, "--host", "::1")
    assert process.stdout
    try:
        url = process.stdout.readline().split(" answers at ")[1].split(",")[0]
        assert url.startswith("http://[::1]:")
        with urllib.request.urlopen(f"{url}/health") as response:
            assert response.status == 200
    finally:
        process.kill()
        process.communicate()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^192\.0\.2\.1:8000: .* Choose another --host\.$"):
        command.serve(host="192.0.2.1")


def test_a_port_that_is_taken_is_named(results: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = serve_it(results, "--port", str(port))
        assert process.wait(60) == 1
        said = process.communicate()[1]
        assert f"error: 127.0.0.1:{port}: Address already in use" in said
        assert "Choose another --port." in said


def test_a_connection_that_asks_for_nothing_is_closed(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.5)
    with serving(talker(words)) as server:
        assert server.runner
        server.runner.config.timeout_keep_alive = 600
        address: Any = urlsplit(server.url).netloc.split(":")
        whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        for sent in (b"", b"GET /health HTTP/1.1\r\nX: ", whole + whole[:20]):
            with socket.create_connection(address, timeout=60) as client:
                client.sendall(sent[: len(whole)])
                if sent[len(whole) :]:
                    answer = b""
                    while not answer.endswith(b'{"status":"ok"}'):
                        piece = client.recv(1000)
                        assert piece, answer
                        answer += piece
                    client.sendall(sent[len(whole) :])
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(9):
                        time.sleep(0.1)
                        client.sendall(b"y" if sent else b"")
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(1000) == b""
        with begun(server) as response:  # takes longer
            assert response.read().endswith(b"data: [DONE]\n\n")
