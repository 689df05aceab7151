"""The server under load: python -m benchmarks.serving.

A d4 model with random weights is served by `imprint serve` in a process of its own. Clients share
the machine with it: what they take, the server does not have. Measured are the time to the first
token alone and among 64 streams, the tokens a second against what the engine does with as many rows
and nobody to talk to, whether places come back from clients that hang up, whether 500 connections
are answered or told to come again, and whether anything that is sent is a fault of the server.
"""

# ruff: noqa: E402
import argparse
import asyncio
import collections
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from imprint.script import sharing

sharing()  # before torch is loaded

import aiohttp
import psutil
import torch
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from rich.console import Console
from rich.table import Table

from imprint import checkpoint, sources
from imprint.decoding import ROWS
from imprint.dice import Dice
from imprint.engine import Engine
from imprint.model import Model, ModelConfig
from imprint.tokenizer import Tokenizer

sys.path.insert(0, "tests")
from serve.hostile import requests

SHORTEST, LONGEST = 32, 128
"""Tokens of an answer: of different lengths, or all clients would ask at the same moment."""
QUESTIONS = ("Who are you?", "What is your name?", "Who made you?", "Where were you trained?")
PATIENCE_S = 1.0
"""Time for an answer to a hostile request: some promise more than they send, and get none."""
CLOSING_S = 1.0
"""Until the server has noticed that 500 connections were closed."""
FLOORS = {"of_engine": 0.8, "hung_up": 1, "told_to_wait": 1}
"""Hang-ups that are not noticed free no places, and 500 answers at once have no places."""
CEILINGS = {"ttft_ratio": 10.0, "more_memory_mb": 100.0, "more_files": 10}
"""Of memory and files: what the second 500 connections take beyond the first."""
NOTHING = ("errors", "live_after", "other", "faults")


def made(folder: Path) -> Path:
    """Write a checkpoint and its tokenizer; return the checkpoint."""
    source = sources.find("embedded")
    words = Tokenizer.train(source.documents(characters=2_000_000, seed=1), vocabulary=4096)
    model = Model(ModelConfig(depth=4, vocabulary=words.vocabulary, context=256), seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.05, generator=generator)
    words.save(folder / "tokenizer" / "tokenizer.json")
    about: dict[str, Any] = {"settings": {}, "seed": 1, "step": 0, "stage": "sft"}
    checkpoint.save(folder / "sft.pt", model, tokenizer=words.digest, **about)
    return folder / "sft.pt"


def limit(path: Path, *, seconds: float) -> float:
    """Return the tokens a second of the engine with all rows taken, prompts read on the way.

    It gets the threads that the server gives it: one core is for the clients.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    engine = Engine.load(path)
    prompts = engine.prompts([question(number) for number in range(ROWS)], max_tokens=LONGEST)
    batch, said, number = engine.batch(), 0, 0
    live: list[Any] = []

    def fill() -> None:
        nonlocal number
        while len(batch.live) < ROWS:
            live.append(engine.request(prompts[number % ROWS], max_tokens=length(number)))
            batch.join(live[-1])
            number += 1

    fill()
    before, started = sum(len(request.said) for request in live), time.monotonic()
    while time.monotonic() < started + seconds:
        batch.step()
        fill()
    said = sum(len(request.said) for request in live) - before
    return said / (time.monotonic() - started)


def length(number: int) -> int:
    """Return the tokens that an answer may have."""
    return SHORTEST + Dice(1, "length", number).below(LONGEST - SHORTEST + 1)


def question(number: int) -> Any:
    """Return a conversation."""
    return [{"role": "user", "content": f"{QUESTIONS[number % len(QUESTIONS)]} ({number})"}]


@contextlib.contextmanager
def served(path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Serve ``path`` in a process of its own; yield the URL and the process."""
    command = [sys.executable, "-c", "from imprint.cli import main; main()", "serve", "--port=0"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            [*command, f"--checkpoint={path}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        assert process.stdout
        try:
            yield (
                process.stdout.readline().split(" answers at ")[1].split(",")[0],
                psutil.Process(process.pid),
            )
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            log.seek(0)
            # the hostile requests are not worth a line each
            sys.stderr.writelines(line for line in log if "Invalid HTTP request" not in line)


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client that opens as many connections as it is asked for."""
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        yield client


class Load:
    """What clients have seen."""

    def __init__(self, url: str) -> None:
        self.url, self.chat = url, f"{url}/v1/chat/completions"
        self.first: list[float] = []
        self.statuses: collections.Counter[int] = collections.Counter()
        self.tokens = 0
        self.number = 0

    async def one(self, client: aiohttp.ClientSession, *, hang_up: bool = False) -> None:
        """Ask, and read the stream to its end, or hang up in the middle."""
        self.number += 1
        body = {"messages": question(self.number), "max_tokens": length(self.number)}
        started = time.monotonic()
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with client.post(self.chat, json=asked) as response:
            self.statuses[response.status] += 1
            if response.status != 200:
                await response.read()
                return
            last = first = b""
            async for chunk in response.content.iter_any():
                if not first:
                    self.first.append(time.monotonic() - started)
                    first = chunk
                    if hang_up:
                        response.close()
                        return
                last = last[-1000:] + chunk
            assert last.endswith(b"data: [DONE]\n\n"), last
            usage = json.loads(last.split(b"data: ")[-2])["usage"]
            self.tokens += usage["completion_tokens"]

    async def metric(self, client: aiohttp.ClientSession, name: str) -> float:
        """Return what the server says of itself."""
        async with client.get(f"{self.url}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


async def loaded(load: Load, *, clients: int, seconds: float) -> dict[str, float]:
    """Ask one at a time, then with many clients; return the figures."""
    async with session() as client:
        for _ in range(3):
            await load.one(client)
        load.first.clear()
        for _ in range(30):
            await load.one(client)
        alone = sorted(load.first)
        load.first.clear()
        end = time.monotonic() + seconds

        async def keep_asking() -> None:
            while time.monotonic() < end:
                await load.one(client)

        async def rate() -> float:
            await asyncio.sleep(seconds / 10)  # until all places are taken
            said = await load.metric(client, "imprint_tokens_out_total")
            started = time.monotonic()
            await asyncio.sleep(end - started)
            said = await load.metric(client, "imprint_tokens_out_total") - said
            return said / (time.monotonic() - started)

        measured, *_ = await asyncio.gather(rate(), *(keep_asking() for _ in range(clients)))
    many = sorted(load.first)
    return {
        "ttft_alone_p50_ms": 1000 * statistics.median(alone),
        "ttft_alone_p95_ms": 1000 * alone[int(0.95 * len(alone))],
        "ttft_p50_ms": 1000 * statistics.median(many),
        "ttft_p95_ms": 1000 * many[int(0.95 * len(many))],
        "tokens_per_s": measured,
        "answers": len(many),
        "errors": sum(count for status, count in load.statuses.items() if status != 200),
    }


async def deserted(load: Load, *, clients: int) -> dict[str, float]:
    """Let every third client hang up in the middle; return how long its place stays taken."""
    async with session() as client:
        hung_up = await load.metric(client, "imprint_hung_up_total")
        await asyncio.gather(*(load.one(client, hang_up=n % 3 == 0) for n in range(clients)))
        gone = time.monotonic()
        while await load.metric(client, "imprint_live") and time.monotonic() < gone + 30:
            await asyncio.sleep(0.02)
        hung_up = await load.metric(client, "imprint_hung_up_total") - hung_up
        return {
            "hung_up": hung_up,
            "live_after": await load.metric(client, "imprint_live"),
            "free_after_s": time.monotonic() - gone,
        }


async def crowded(load: Load, process: psutil.Process) -> dict[str, float]:
    """Ask over 500 connections at once, twice; return what came back and what it cost."""
    load.statuses.clear()
    async with session() as client:
        await asyncio.gather(*(load.one(client) for _ in range(500)))
    await asyncio.sleep(CLOSING_S)
    memory, files = process.memory_info().rss, process.num_fds()
    async with session() as client:
        await asyncio.gather(*(load.one(client) for _ in range(500)))
    await asyncio.sleep(CLOSING_S)
    return {
        "answered": load.statuses[200],
        "told_to_wait": load.statuses[429],
        "other": sum(load.statuses.values()) - load.statuses[200] - load.statuses[429],
        "more_memory_mb": (process.memory_info().rss - memory) / 1e6,
        "more_files": process.num_fds() - files,
    }


async def hostile(url: str, *, count: int) -> dict[str, float]:
    """Send ``count`` requests that nobody means well; return how many broke the server."""
    host, port = url.removeprefix("http://").split(":")
    seen: collections.Counter[int] = collections.Counter()
    several: list[bytes] = []
    with urllib.request.urlopen(f"{url}/openapi.json") as response:
        openapi = json.load(response)

    @hypothesis_settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(openapi))
    def draw(request: bytes) -> None:
        several.append(request)

    draw()
    at_once = asyncio.Semaphore(32)

    async def send(request: bytes) -> None:
        answer = b""
        async with at_once:
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.suppress(TimeoutError, ConnectionError):
                writer.write(request)
                answer = await asyncio.wait_for(reader.readline(), PATIENCE_S)
            writer.close()
        seen[int(answer.split(b" ", 2)[1]) if answer else 0] += 1

    await asyncio.gather(*map(send, several))
    faults = sum(number for status, number in seen.items() if status >= 500)
    return {"hostile": sum(seen.values()), "hostile_right": seen[200], "faults": faults}


def main() -> None:
    """Measure, print a table, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--hostile", type=int, default=10_000, help="requests")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = made(Path(folder))
        before = limit(path, seconds=given.seconds / 6)
        with served(path) as (url, process):
            load = Load(url)
            figures |= asyncio.run(loaded(load, clients=given.clients, seconds=given.seconds))
            figures |= asyncio.run(deserted(load, clients=given.clients))
            figures |= asyncio.run(crowded(load, process))
            figures |= asyncio.run(hostile(url, count=given.hostile))
        after = limit(path, seconds=given.seconds / 6)
    figures["engine_tokens_per_s"] = (before + after) / 2
    figures["of_engine"] = figures["tokens_per_s"] / figures["engine_tokens_per_s"]
    figures["ttft_ratio"] = figures["ttft_p95_ms"] / figures["ttft_alone_p95_ms"]
    table = Table("measured", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.2f}".rstrip("0").rstrip("."))
    Console().print(table)
    missed = [name for name, least in FLOORS.items() if figures[name] < least]
    missed += [name for name, most in CEILINGS.items() if figures[name] > most]
    missed += [name for name in NOTHING if figures[name]]
    rounded = {name: round(value, 3) for name, value in figures.items()}
    sys.stdout.write(json.dumps({**rounded, "missed": missed}) + "\n")


if __name__ == "__main__":
    main()
