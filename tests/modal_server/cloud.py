"""Starts and stops everything, and is what tests look at."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from grpclib.server import Server
from modal_proto import api_pb2 as pb

from modal_server.apps import Apps, Charge, Image
from modal_server.blocks import Store
from modal_server.call import Call
from modal_server.calls import Calls
from modal_server.faults import Fault, Faults, HttpFault
from modal_server.functions import Functions, Options
from modal_server.logs import Logs
from modal_server.rpc import Message, Switchboard
from modal_server.storage import Room
from modal_server.volumes import Volumes

TOKEN = ("ak-loopback", "as-loopback")


class Cloud:
    """Modal in a thread of this process; ``with`` starts and stops it."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        commit_every_s: float | None = 5.0,
        notice: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Keep everything in ``folder``; volumes of an earlier server there are taken over.

        Args:
            folder: Made if it does not exist.
            port: Of the gRPC server; 0 takes a free one.
            commit_every_s: Seconds between background commits; None switches them off.
            notice: Is told about deployments and calls, in a sentence each.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._port = folder.resolve(), port
        self._faults, self._room = Faults(), Room()
        self._store = Store(self._folder / "store", self._faults, self._room)
        self._apps = Apps(self._folder / "files", self._store)
        self._logs = Logs()
        self._functions = Functions(self._apps, notice)
        self._volumes = Volumes(self._folder / "volumes", self._store, self._room)
        self._calls = Calls(
            self._folder / "containers",
            (self._apps, self._functions, self._volumes, self._store, self._logs),
            commit_every_s,
            notice,
        )
        parts = (self._apps, self._functions, self._calls, self._volumes, self._logs, self._store)
        self._switchboard = Switchboard(parts, self._faults, TOKEN)
        self.environment: dict[str, str] = {}
        """What makes a client talk to this server, and not to the real one."""

        self._ready = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Cloud":
        self._thread.start()
        self._ready.wait()
        if self._failed:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def calls(self) -> Counter[str]:
        """How often each RPC was served; a repeated request counts once."""
        return Counter(self._switchboard.calls)

    @property
    def log(self) -> list[tuple[float, str, Message]]:
        """When which RPC was served, and what was asked; the newest 10,000."""
        return list(self._switchboard.log)

    @property
    def spawned(self) -> list[Call]:
        """All function calls, in order; they go on changing while they run."""
        return list(self._calls.calls.values())

    @property
    def apps(self) -> dict[str, dict[str, Options]]:
        """The functions of each deployed app, by names."""
        return {
            app.name: {
                name: self._functions.options(function_id)
                for name, function_id in app.functions.items()
            }
            for app in list(self._apps.apps.values())
            if app.state == pb.APP_STATE_DEPLOYED
        }

    @property
    def images(self) -> list[Image]:
        """What was built, in order."""
        return list(self._apps.images.values())

    @property
    def mounts(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each file, by mount id and path."""
        return dict(self._apps.mounts)

    @property
    def uploaded_bytes(self) -> int:
        """Bytes of blocks that were PUT."""
        return self._store.uploaded_bytes

    @property
    def rates(self) -> dict[str, str]:
        """What the billing RPC says that things cost; to be filled by tests."""
        return self._apps.rates

    @property
    def billed(self) -> list[Charge]:
        """What the billing report holds; to be filled by tests."""
        return self._apps.billed

    def volume(self, name: str) -> Path:
        """Return the committed content of a volume, to be read and edited; it need not exist."""
        return self._volumes.make(name).folder

    def fault(
        self,
        rpc: str,
        *,
        before: str | None = None,
        after: str | None = None,
        times: int = 1,
        delay_s: float = 0.0,
        drop_after: int | None = None,
    ) -> None:
        """Let the next calls of an RPC go wrong.

        Args:
            rpc: Its name, such as FunctionMap.
            before: gRPC status of a refusal that leaves no effect.
            after: gRPC status that hides the answer, while the effect stays.
            times: How many calls go wrong.
            delay_s: Seconds before anything happens.
            drop_after: Messages after which a stream breaks with UNAVAILABLE.
        """
        self._faults.add(rpc, Fault(before, after, times, delay_s, drop_after))

    def http_fault(self, method: str, *, status: int = 503, times: int = 1) -> None:
        """Let the next block PUTs or GETs fail with an HTTP status."""
        self._faults.add_http(method, HttpFault(status, times))

    def capacity(self, delay_s: float) -> None:
        """Let each later call wait so long for its container."""
        self._calls.capacity_s = delay_s

    def preempt(self, after_s: float, grace_s: float = 1.0) -> None:
        """Preempt the container that runs, or else the next that starts.

        Args:
            after_s: Seconds from now, or from the start of the next container, to its SIGINT.
            grace_s: Seconds from SIGINT to SIGKILL.
        """
        self._loop.call_soon_threadsafe(self._calls.preempt, after_s, grace_s)

    def time_up(self) -> None:
        """Let the time limit of whatever runs be over now."""
        self._loop.call_soon_threadsafe(self._calls.time_up)

    def full_after(self, bytes_: int | None) -> None:
        """Let all volumes together take so many more bytes; None lifts the limit."""
        self._room.left = bytes_

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self._store.app(), access_log=None, shutdown_timeout=0.1)
        server = Server([self._switchboard])
        try:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._store.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
            await server.start("127.0.0.1", self._port)
            assert isinstance(server._server, asyncio.Server)
            address = server._server.sockets[0].getsockname()
            self.environment |= {
                "MODAL_SERVER_URL": f"http://127.0.0.1:{address[1]}",
                "MODAL_TOKEN_ID": TOKEN[0],
                "MODAL_TOKEN_SECRET": TOKEN[1],
                "MODAL_CONFIG_PATH": str(self._folder / "no-modal.toml"),
            }
        except Exception as error:
            self._failed = error
        self._ready.set()
        if not self._failed:
            await self._stop.wait()
            await self._calls.close()
            server.close()
        await runner.cleanup()
