"""One function call, from waiting to its result."""

import asyncio
import dataclasses
import time
from typing import Any

from modal._serialization import deserialize_data_format
from modal_proto import api_pb2 as pb

from modal_server.container import Container
from modal_server.functions import Function
from modal_server.logs import SOURCES, Line
from modal_server.rpc import fresh


@dataclasses.dataclass
class Call:
    """One function call; tests look at it while it changes."""

    function: Function
    given: pb.FunctionInput
    id: str = dataclasses.field(default_factory=lambda: fresh("fc"))
    input_id: str = dataclasses.field(default_factory=lambda: fresh("in"))
    status: str = "waiting"
    """waiting, running, done, failed, timeout or cancelled."""

    starts: int = 0
    """How often a container began it."""

    created_at: float = dataclasses.field(default_factory=time.time)
    started_at: float = 0.0
    finished_at: float = 0.0
    output: pb.FunctionGetOutputsItem | None = None
    container: Container | None = None
    """The newest one."""

    cancelled: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    finished: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    @property
    def gpu(self) -> str:
        """Such as H100:8; the first choice if there are several; empty without a GPU."""
        return next(iter(self.function.gpus), "")

    @property
    def cpu(self) -> float:
        """Cores."""
        return self.function.definition.resources.milli_cpu / 1000

    @property
    def memory(self) -> int:
        """MiB."""
        return self.function.definition.resources.memory_mb

    @property
    def timeout(self) -> int:
        """Seconds."""
        return self.function.definition.timeout_secs

    @property
    def region(self) -> tuple[str, ...]:
        """Where it may run; empty is anywhere."""
        return tuple(self.function.definition.scheduler_placement.regions)

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with."""
        given: tuple[tuple[Any, ...], dict[str, Any]] = deserialize_data_format(
            self.given.args, self.given.data_format, None
        )
        return given

    @property
    def env(self) -> dict[str, str]:
        """The environment of its newest container."""
        return self.container.environment if self.container else {}

    @property
    def pid(self) -> int | None:
        """The process of its newest container, which leads a process group."""
        return self.container.pid if self.container else None

    @property
    def task_id(self) -> str:
        """The id of its newest container; empty if there was none."""
        return self.container.id if self.container else ""

    def line(self, source: str, text: str) -> Line:
        """Return a line of its newest container."""
        ids = (self.function.app_id, self.function.id, self.id, self.input_id, self.task_id)
        return Line(*ids, SOURCES[source], text)
