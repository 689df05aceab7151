"""Function calls: capacity, retries, preemption and crashes included."""

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path

from grpclib import GRPCError, Status
from modal_proto import api_pb2 as pb

from modal_server.apps import Apps
from modal_server.blocks import Store
from modal_server.call import Call
from modal_server.container import Container, Ending, clear
from modal_server.functions import Functions
from modal_server.logs import Logs
from modal_server.rpc import Empty, missing
from modal_server.volumes import Volumes

Outcome = pb.GenericResult.GenericStatus
STATUSES = {
    Outcome.GENERIC_STATUS_SUCCESS: "done",
    Outcome.GENERIC_STATUS_FAILURE: "failed",
    Outcome.GENERIC_STATUS_INTERNAL_FAILURE: "failed",
    Outcome.GENERIC_STATUS_TERMINATED: "cancelled",
    Outcome.GENERIC_STATUS_TIMEOUT: "timeout",
}
CRASH_DELAY_S = 0.2  # doubles with each crash, up to 5 s; the cloud never gives up either


class Calls:
    """All calls since the server started."""

    def __init__(
        self,
        folder: Path,
        parts: tuple[Apps, Functions, Volumes, Store, Logs],
        commit_every_s: float | None,
        notice: Callable[[str], None],
    ) -> None:
        """Run containers in ``folder``; say in ``notice`` what people like to know."""
        clear(folder)
        self._folder, self._commit_every_s, self._notice = folder, commit_every_s, notice
        self._apps, self._functions, self._volumes, self._store, self._logs = parts
        self.capacity_s = 0.0
        self.calls: dict[str, Call] = {}
        self._preemptions: deque[tuple[float, float]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._store.commit = self._commit

    def get(self, call_id: str) -> Call:
        """Return a call by its id; a gRPC error if there is none."""
        if call_id not in self.calls:
            raise missing(f"Function call {call_id}")
        return self.calls[call_id]

    def preempt(self, after_s: float, grace_s: float) -> None:
        """Preempt the first container that runs, or else the next that starts."""
        running = [call for call in self.calls.values() if call.status == "running"]
        if running and running[0].container:
            _preempt(running[0].container, after_s, grace_s)
        else:
            self._preemptions.append((after_s, grace_s))

    def time_up(self) -> None:
        """End what runs as if its time limit was over."""
        for call in self.calls.values():
            if call.status == "running" and call.container:
                call.container.end("timeout", 1.0)

    async def close(self) -> None:
        """Kill what runs."""
        for call in self.calls.values():
            _cancel(call, grace_s=0.0)
        await asyncio.gather(*self._tasks)

    async def FunctionMap(self, request: pb.FunctionMapRequest) -> pb.FunctionMapResponse:
        function = self._functions.get(request.function_id)
        if self._apps.app(function.app_id).stopped_at:
            raise missing(f"App {function.app_id} is stopped: function {function.name}")
        if len(request.pipelined_inputs) != 1:
            raise GRPCError(Status.UNIMPLEMENTED, "the loopback server takes one input per call")
        if function.definition.is_class or function.definition.webhook_config.type:
            message = "the loopback server runs plain functions, no classes and no web functions"
            raise GRPCError(Status.UNIMPLEMENTED, message)
        given = request.pipelined_inputs[0].input
        if given.WhichOneof("args_oneof") == "args_blob_id":
            given.args = self._store.blob(given.args_blob_id)
        call = Call(function, given)
        self.calls[call.id] = call
        task = asyncio.ensure_future(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        item = pb.FunctionPutInputsResponseItem(input_id=call.input_id, input_jwt="loopback")
        return pb.FunctionMapResponse(function_call_id=call.id, pipelined_inputs=[item])

    async def FunctionGetOutputs(
        self, request: pb.FunctionGetOutputsRequest
    ) -> pb.FunctionGetOutputsResponse:
        call = self.get(request.function_call_id)
        if not await _within(call.finished, request.timeout):
            return pb.FunctionGetOutputsResponse(num_unfinished_inputs=1)
        assert call.output
        return pb.FunctionGetOutputsResponse(outputs=[call.output], idxs=[0])

    async def FunctionCallFromId(
        self, request: pb.FunctionCallFromIdRequest
    ) -> pb.FunctionCallFromIdResponse:
        call = self.get(request.function_call_id)
        ids = {"app_id": call.function.app_id, "function_id": call.function.id}
        return pb.FunctionCallFromIdResponse(
            function_call_id=call.id, num_inputs=1, metadata=pb.FunctionCallHandleMetadata(**ids)
        )

    async def FunctionCallGetInfo(
        self, request: pb.FunctionCallGetInfoRequest
    ) -> pb.FunctionCallGetInfoResponse:
        call = self.get(request.function_call_id)
        info = pb.FunctionCallInfo(function_call_id=call.id, total_inputs=1)
        info.created_at = call.created_at
        ends = {"done": info.succeeded_inputs, "failed": info.failed_inputs}
        ends |= {"timeout": info.timeout_inputs, "cancelled": info.cancelled_inputs}
        category = ends.get(call.status, info.pending_inputs)
        category.total = 1
        category.latest.add(
            input_id=call.input_id,
            task_id=call.task_id,
            started_at=call.started_at,
            finished_at=call.finished_at,
        )
        return pb.FunctionCallGetInfoResponse(info=info)

    async def FunctionGetCallGraph(
        self, request: pb.FunctionGetCallGraphRequest
    ) -> pb.FunctionGetCallGraphResponse:
        call = self.get(request.function_call_id)
        answer = pb.FunctionGetCallGraphResponse()
        answer.function_calls.add(function_call_id=call.id, function_name=call.function.name)
        node = answer.inputs.add(input_id=call.input_id, function_call_id=call.id)
        node.task_id = call.task_id
        if call.output:
            node.status = call.output.result.status
        return answer

    async def FunctionCallCancel(self, request: pb.FunctionCallCancelRequest) -> Empty:
        _cancel(self.get(request.function_call_id))
        return Empty()

    async def AppStop(self, request: pb.AppStopRequest) -> Empty:
        app = self._apps.app(request.app_id)
        app.state, app.stopped_at = pb.APP_STATE_STOPPED, time.time()
        for call in self.calls.values():
            if call.function.app_id == app.id:
                _cancel(call)
        self._logs.stop(app.id)
        self._notice(f"{app.name} stopped")
        return Empty()

    async def AppClientDisconnect(self, request: pb.AppClientDisconnectRequest) -> Empty:
        app = self._apps.app(request.app_id)
        if app.state not in (pb.APP_STATE_DEPLOYED, pb.APP_STATE_DETACHED):
            await self.AppStop(pb.AppStopRequest(app_id=app.id))
        return Empty()

    async def _commit(self, task_id: str, path: str) -> str:
        for call in self.calls.values():
            if call.container and call.task_id == task_id:
                return await call.container.commit(path)
        return "no such container"

    async def _run(self, call: Call) -> None:
        try:
            result = await self._result(call)
        except Exception:
            text = f"The loopback server failed:\n{traceback.format_exc()}"
            result = _without_output(Outcome.GENERIC_STATUS_INTERNAL_FAILURE, text)
        result.input_id, result.task_id = call.input_id, call.task_id
        call.output, call.finished_at = result, time.time()
        call.status = STATUSES[result.result.status]
        call.finished.set()
        self._notice(f"{call.function.name} {call.status} ({call.id})")

    async def _result(self, call: Call) -> pb.FunctionGetOutputsItem:
        policy = call.function.definition.retry_policy
        retries, crashes, delay_s = policy.retries, 0, self.capacity_s
        while not await _within(call.cancelled, delay_s):
            ending = await self._start(call)
            call.status, output = "waiting", ending.output
            if ending.how == "cancelled":
                break
            if ending.how == "timeout":
                text = f"The input hit its timeout of {call.timeout}s"
                output = _without_output(Outcome.GENERIC_STATUS_TIMEOUT, text)
            done = output and output.result.status == Outcome.GENERIC_STATUS_SUCCESS
            if output and (done or (ending.how != "preempted" and not retries)):
                return output
            if ending.how == "preempted":
                text, delay_s = "Preempted", 0.0
            elif output:
                retries -= 1
                text, delay_s = "Failed; a retry is left", policy.initial_delay_ms / 1000
            else:
                text = f"Container exited with status {ending.status}"
                crashes, delay_s = crashes + 1, min(CRASH_DELAY_S * 2**crashes, 5.0)
            self._logs.add(call.line("system", f"{text}: the same input will run again.\n"))
        return _without_output(Outcome.GENERIC_STATUS_TERMINATED, "The input was cancelled")

    async def _start(self, call: Call) -> Ending:
        def write(source: str, text: str) -> None:
            self._logs.add(call.line(source, text))

        container = Container(self._folder, call.function, write, self._commit_every_s)
        await container.prepare(self._apps, self._volumes, self._store.base)
        call.container, call.status = container, "running"
        call.starts, call.started_at = call.starts + 1, time.time()
        self._notice(f"{call.function.name} starts on {call.gpu or 'CPU'} ({call.id})")
        if call.cancelled.is_set():
            container.end("cancelled", 0.0)
        elif self._preemptions:
            _preempt(container, *self._preemptions.popleft())
        return await container.run(call.given)


def _cancel(call: Call, grace_s: float = 2.0) -> None:
    call.cancelled.set()
    if call.container:
        call.container.end("cancelled", grace_s)


def _preempt(container: Container, after_s: float, grace_s: float) -> None:
    asyncio.get_running_loop().call_later(after_s, container.end, "preempted", grace_s)


def _without_output(status: Outcome.ValueType, text: str) -> pb.FunctionGetOutputsItem:
    result = pb.GenericResult(status=status, exception=text)
    return pb.FunctionGetOutputsItem(result=result)


async def _within(event: asyncio.Event, delay_s: float) -> bool:
    """Wait that long; return whether the event happened by then."""
    try:
        await asyncio.wait_for(event.wait(), delay_s)
    except TimeoutError:
        pass  # also at once, when there is no time to wait
    return event.is_set()
