"""Processes of containers, started as forks of one that has Modal's client loaded: see runner."""

import asyncio
import atexit
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py")
KEPT = ("LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that a container has from here: the locale, and how many threads are worth it."""


class Process:
    """One that runs; it leads a session of its own."""

    pid: int
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader
    status: asyncio.Future[int]
    """At its end: what it exited with, or minus the signal that killed it."""

    async def start(self, folder: Path, work: Path, environment: Mapping[str, str]) -> None:
        """Run what lies in ``folder``.

        Args:
            folder: Holds function.pb and input.pb.
            work: The working directory.
            environment: All of it.
        """
        pipes = [os.pipe() for _ in range(3)]
        told = {"folder": str(folder), "work": str(work), "environment": dict(environment)}
        (folder / "order.json").write_text(json.dumps(told), encoding="utf-8")
        try:
            # Descriptors that come along keep messages apart, also on a stream.
            name = os.fsencode(folder / "order.json")
            socket.send_fds(_nursery(), [name], [end for _, end in pipes])
        finally:
            for _, end in pipes:
                os.close(end)
        self.stdout, self.stderr, report = [await _reader(start) for start, _ in pipes]
        self.pid = int(await report.readline())
        self.status = asyncio.ensure_future(_number(report))


async def _number(reader: asyncio.StreamReader) -> int:
    return int(await reader.readline())


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    file = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
    return reader


@functools.cache
def _nursery() -> socket.socket:
    """Return the line to the process that forks the others; it ends when the line is closed."""
    here, there = socket.socketpair()
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-u", "-P", RUNNER, str(there.fileno())],
        env={**environment, "MODAL_CONFIG_PATH": os.devnull},
        stdin=subprocess.DEVNULL,
        pass_fds=[there.fileno()],
        start_new_session=True,
    )
    there.close()

    def end() -> None:
        here.close()
        process.wait()

    atexit.register(end)
    return here
