"""One process with its own copy of a volume, from its start to its last commit."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modal_proto import api_pb2 as pb

from modal_server.apps import Apps
from modal_server.functions import Function
from modal_server.processes import KEPT, Process
from modal_server.rpc import fresh
from modal_server.storage import Full, Snapshot, Volume, snapshot
from modal_server.volumes import Volumes

SYNC = """#!{python} -IS
import http.client, os, sys
for path in [os.path.abspath(path) for path in sys.argv[1:]] or [""]:
    connection = http.client.HTTPConnection("{host}")
    connection.request("POST", "/commit/{task}", path.encode())
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        sys.exit(f"sync: error syncing '{{path}}': {{text}}")
"""
"""The ``sync`` of a container: commits the volume at each path."""

SIGNALS = {"preempted": signal.SIGINT, "cancelled": signal.SIGTERM, "timeout": signal.SIGTERM}


@dataclasses.dataclass
class Mount:
    """A volume in a container."""

    volume: Volume
    path: Path
    """Where the container believes it to be."""

    work: Path
    """Where the container's own copy is."""

    sub_path: str
    read_only: bool
    committed: Snapshot = dataclasses.field(default_factory=dict)

    def copy(self) -> None:
        """Take the container's own copy."""
        self.work.mkdir()
        source = self.volume.find(self.sub_path)
        if source.is_dir():
            shutil.copytree(source, self.work, symlinks=True, dirs_exist_ok=True)
        self.committed = snapshot(self.work)

    def commit(self) -> None:
        """Bring what changed into the volume; Full or OSError if that fails."""
        self.committed = self.volume.commit(self.work, self.sub_path, self.committed)


@dataclasses.dataclass
class Ending:
    """How a container ended."""

    how: str
    """exited, cancelled, preempted or timeout."""

    status: int
    """Of the process; minus the signal if one killed it."""

    output: pb.FunctionGetOutputsItem | None
    """What the function returned or raised, if it came to that."""


class Container:
    """Runs one input once."""

    def __init__(
        self,
        folder: Path,
        function: Function,
        write: Callable[[str, str], None],
        commit_every_s: float | None,
    ) -> None:
        """Prepare nothing yet; ``write`` gets source and text of each line."""
        self.id = fresh("ta")
        self.environment: dict[str, str] = {}
        self.pid: int | None = None
        self._function, self._folder, self._work = function, folder / self.id, folder
        self._write, self._commit_every_s = write, commit_every_s
        self._mounts: list[Mount] = []
        self._committing, self._over = asyncio.Lock(), False
        self._order: asyncio.Future[tuple[str, float]] = asyncio.get_running_loop().create_future()

    def end(self, how: str, grace_s: float) -> None:
        """Signal the process (cancelled or preempted), and kill it after the grace."""
        if not self._order.done():
            self._order.set_result((how, grace_s))

    async def prepare(self, apps: Apps, volumes: Volumes, base: str) -> None:
        """Lay out the files and copy the volumes; commits go to the server at ``base``."""
        made, root, programs = (
            self._function.definition,
            self._folder / "root",
            self._folder / "bin",
        )
        image = apps.images[made.image_id]
        for folder in (programs, root / "root", self._folder / "home"):
            folder.mkdir(parents=True)
        for files in (image.files, *(apps.mount(mount_id) for mount_id in made.mount_ids)):
            for name, digest in files.items():
                if apps.file(digest).exists():  # what Dockerfile lines copy is elsewhere
                    target = root / name.lstrip("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(apps.file(digest), target)
        self._work = root / (image.workdir or "/root").lstrip("/")
        self._work.mkdir(parents=True, exist_ok=True)
        for number, asked in enumerate(made.volume_mounts):
            volume, work = volumes.get(asked.volume_id), self._folder / f"volume-{number}"
            path = Path(asked.mount_path)
            mount = Mount(volume, path, work, asked.sub_path, asked.read_only)
            await asyncio.to_thread(mount.copy)
            self._mounts.append(mount)
            if number == 0 or image.workdir == asked.mount_path:
                self._work = work
        host = base.removeprefix("http://")
        program = SYNC.format(python=sys.executable, host=host, task=self.id)
        (programs / "sync").write_text(program)
        (programs / "sync").chmod(0o755)
        self.environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment |= image.environment
        for secret_id in made.secret_ids:
            self.environment |= apps.secrets[secret_id]
        modules = f"/root:{self.environment.get('PYTHONPATH', '')}".strip(":").split(":")
        self.environment |= {
            "PATH": f"{programs}:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder / "home"),
            "XDG_CACHE_HOME": str(self._folder.parent / "cache"),  # fonts are listed only once
            "PYTHONPATH": ":".join(str(root / path.lstrip("/")) for path in modules),
            "MODAL_TASK_ID": self.id,
            "MODAL_IS_REMOTE": "1",
        }

    async def run(self, given: pb.FunctionInput) -> Ending:
        """Run the function on ``given`` and commit what is left at the end."""
        (self._folder / "function.pb").write_bytes(self._function.definition.SerializeToString())
        (self._folder / "input.pb").write_bytes(given.SerializeToString())
        process = Process()
        await process.start(self._folder, self._work, self.environment)
        self.pid = process.pid
        reading = asyncio.gather(
            self._read(process.stdout, "stdout"), self._read(process.stderr, "stderr")
        )
        background = asyncio.ensure_future(self._commit_now_and_then())
        how = await self._ended(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(kill_all, self.id)
        status, _ = await asyncio.gather(process.status, reading)
        async with self._committing:  # let one that is under way end
            background.cancel()
            self._over = True
        if how != "exited" or status != -signal.SIGKILL:
            for mount in self._mounts:
                wrong = await self._committed(mount)
                if wrong and not mount.read_only:
                    self._write("system", f"Committing {mount.path} failed: {wrong}\n")
        output, written = None, self._folder / "output.pb"
        if written.exists():
            output = pb.FunctionGetOutputsItem.FromString(written.read_bytes())
        await asyncio.to_thread(shutil.rmtree, self._folder)
        return Ending(how, status, output)

    async def commit(self, path: str) -> str:
        """Commit the volume at ``path``, or all of them; return what went wrong, if anything."""
        for mount in self._mounts:
            if path and not any(Path(path).is_relative_to(at) for at in (mount.path, mount.work)):
                continue
            async with self._committing:
                wrong = "The container has ended" if self._over else await self._committed(mount)
            if wrong:
                return wrong
        return ""

    async def _committed(self, mount: Mount) -> str:
        if mount.read_only:
            return "Read-only file system"
        try:
            await asyncio.to_thread(mount.commit)
        except (Full, OSError) as error:
            return str(error)
        return ""

    async def _ended(self, process: Process) -> str:
        exited = process.status
        until: set[asyncio.Future[Any]] = {exited, self._order}
        limit_s = self._function.definition.timeout_secs or 300
        await asyncio.wait(until, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if exited.done():
            return "exited"
        how, grace_s = self._order.result() if self._order.done() else ("timeout", 1.0)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, SIGNALS[how])
        await asyncio.wait({exited}, timeout=grace_s)
        return how

    async def _commit_now_and_then(self) -> None:
        while self._commit_every_s is not None:
            await asyncio.sleep(self._commit_every_s)
            for mount in self._mounts:
                await self.commit(str(mount.path))

    async def _read(self, pipe: asyncio.StreamReader, source: str) -> None:
        rest = b""
        while chunk := await pipe.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._write(source, line.decode(errors="replace") + "\n")
        if rest:
            self._write(source, rest.decode(errors="replace"))


def clear(folder: Path) -> None:
    """Remove what the containers of a server that was killed have left in ``folder``."""
    for left in folder.glob("ta-*"):
        kill_all(left.name)
        shutil.rmtree(left)


def kill_all(task_id: str) -> None:
    """Kill every process of a container, also those that left its process group."""
    mark, found = f"MODAL_TASK_ID={task_id}".encode(), True
    while found:
        found = False
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    found = True
