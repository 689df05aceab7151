"""Lines of the containers, streamed, counted and fetched."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Iterable
from itertools import groupby

from modal_proto import api_pb2 as pb

SOURCES = {
    "stdout": pb.FILE_DESCRIPTOR_STDOUT,
    "stderr": pb.FILE_DESCRIPTOR_STDERR,
    "system": pb.FILE_DESCRIPTOR_INFO,
}
BATCH = 10  # lines a message: small, so that a stream has messages to break between

Query = pb.AppGetLogsRequest | pb.AppFetchLogsRequest | pb.AppCountLogsRequest


@dataclasses.dataclass(frozen=True)
class Line:
    """One line, and who wrote it when."""

    app_id: str
    function_id: str
    call_id: str
    input_id: str
    task_id: str
    source: int
    text: str
    time_ns: int = dataclasses.field(default_factory=time.time_ns)
    number: int = 0
    """Place among all lines, counted from 1; it is known once the line is added."""


class Logs:
    """All lines of all containers, in order."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._more = asyncio.Event()
        self._stopped: set[str] = set()

    def add(self, line: Line) -> None:
        """Append a line and wake up who waits for it."""
        self._lines.append(dataclasses.replace(line, number=len(self._lines) + 1))
        self._wake()

    def stop(self, app_id: str) -> None:
        """End the streams of an app: nothing will come any more."""
        self._stopped.add(app_id)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = asyncio.Event()

    async def AppGetLogs(self, request: pb.AppGetLogsRequest) -> AsyncIterator[pb.TaskLogsBatch]:
        # Whether the cloud replays from the start without a last_entry_id, only it can tell.
        place = int(request.last_entry_id or 0)
        deadline = time.monotonic() + request.timeout
        while True:
            more, end = self._more, len(self._lines)
            lines = self._lines[place:end]
            found = [line for line in lines if _wanted(line, request, request.file_descriptor)]
            for start in range(0, len(found), BATCH):
                for batch in _batches(found[start : start + BATCH]):
                    yield batch
            place = end
            if request.app_id in self._stopped:
                yield pb.TaskLogsBatch(app_done=True)
                return
            try:
                await asyncio.wait_for(more.wait(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                return

    async def AppFetchLogs(self, request: pb.AppFetchLogsRequest) -> pb.AppFetchLogsResponse:
        found = self._between(request)
        return pb.AppFetchLogsResponse(batches=_batches(found[-request.limit :]))

    async def AppCountLogs(self, request: pb.AppCountLogsRequest) -> pb.AppCountLogsResponse:
        width = request.bucket_secs
        first = request.since.seconds // width * width
        last = max(first, request.until.seconds)
        buckets = {
            start: pb.AppCountLogsResponse.LogBucket() for start in range(first, last + 1, width)
        }
        for start, bucket in buckets.items():
            bucket.bucket_start_at.seconds = start
        for line in self._between(request):
            bucket = buckets[line.time_ns // 10**9 // width * width]
            if line.source == pb.FILE_DESCRIPTOR_STDOUT:
                bucket.stdout_logs += 1
            elif line.source == pb.FILE_DESCRIPTOR_STDERR:
                bucket.stderr_logs += 1
            else:
                bucket.system_logs += 1
        return pb.AppCountLogsResponse(app_id=request.app_id, buckets=buckets.values())

    def _between(self, request: pb.AppFetchLogsRequest | pb.AppCountLogsRequest) -> list[Line]:
        since, until = request.since.ToNanoseconds(), request.until.ToNanoseconds()
        return [
            line
            for line in self._lines
            if since <= line.time_ns < until and _wanted(line, request, request.source)
        ]


def _wanted(line: Line, request: Query, source: int) -> bool:
    return (
        line.app_id == request.app_id
        and request.function_id in ("", line.function_id)
        and request.function_call_id in ("", line.call_id)
        and request.task_id in ("", line.task_id)
        and source in (0, line.source)
        and request.search_text in line.text
    )


def _batches(lines: Iterable[Line]) -> list[pb.TaskLogsBatch]:
    return [
        pb.TaskLogsBatch(
            entry_id=str(group[-1].number),
            task_id=task_id,
            function_id=group[0].function_id,
            input_id=group[0].input_id,
            items=[
                pb.TaskLogs(
                    data=line.text,
                    timestamp=line.time_ns / 1e9,
                    timestamp_ns=line.time_ns,
                    file_descriptor=pb.FileDescriptor.ValueType(line.source),
                    function_call_id=line.call_id,
                    input_id=line.input_id,
                    container_id=line.task_id,
                )
                for line in group
            ],
        )
        for task_id, lines_of in groupby(lines, key=lambda line: line.task_id)
        if (group := list(lines_of))
    ]
