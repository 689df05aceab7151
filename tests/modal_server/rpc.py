"""gRPC plumbing: who may call, what was already answered, what goes wrong."""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from google.protobuf import message_factory  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor  # type: ignore[import-untyped]
from google.protobuf.empty_pb2 import Empty  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]
from grpclib import GRPCError, Status
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream
from modal_proto import api_pb2 as pb

from modal_server.faults import Fault, Faults

__all__ = ["Empty", "Message", "Switchboard", "fresh", "missing"]

SERVICE = pb.DESCRIPTOR.services_by_name["ModalClient"]

Unary = Callable[[Message], Awaitable[Message]]
Streaming = Callable[[Message], AsyncIterator[Message]]
Called = Callable[["Stream[Message, Message]"], Awaitable[None]]


def fresh(prefix: str) -> str:
    """Return a new id of the form that the client expects: prefix, dash, 22 letters or digits."""
    return f"{prefix}-{uuid.uuid4().hex[:22]}"


def missing(what: str) -> GRPCError:
    """Return the error for something that does not exist."""
    return GRPCError(Status.NOT_FOUND, f"{what} not found")


class Switchboard:
    """Connects each RPC of the protocol to the part that has a method of its name."""

    def __init__(self, parts: Sequence[object], faults: Faults, token: tuple[str, str]) -> None:
        """Serve the methods of ``parts`` to who sends ``token`` (id, secret)."""
        self.calls: Counter[str] = Counter()
        self.log: deque[tuple[float, str, Message]] = deque(maxlen=10_000)
        self._parts, self._faults, self._token = parts, faults, token
        self._answers: dict[tuple[str, str], asyncio.Future[Message]] = {}

    def __mapping__(self) -> dict[str, Handler]:
        """Return a handler for every RPC of the protocol, also for those nobody has."""
        return {f"/{SERVICE.full_name}/{rpc.name}": self._handler(rpc) for rpc in SERVICE.methods}

    def _handler(self, rpc: MethodDescriptor) -> Handler:
        part = next((part for part in self._parts if hasattr(part, rpc.name)), None)
        method = getattr(part, rpc.name, None)
        streams = rpc.server_streaming
        called = self._unknown(rpc.name)
        if method is not None:
            called = self._streaming(rpc.name, method) if streams else self._unary(rpc.name, method)
        return Handler(
            called,
            Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY,
            message_factory.GetMessageClass(rpc.input_type),
            message_factory.GetMessageClass(rpc.output_type),
        )

    def _unknown(self, name: str) -> Called:
        async def called(stream: "Stream[Message, Message]") -> None:
            raise GRPCError(Status.UNIMPLEMENTED, f"the loopback server has no {name}")

        return called

    def _unary(self, name: str, method: Unary) -> Called:
        async def called(stream: "Stream[Message, Message]") -> None:
            request, fault = await self._open(name, stream)
            key = (name, _header(stream, "x-idempotency-key") or str(uuid.uuid4()))
            if key not in self._answers:
                self._count(name, request)
                # A task of its own: the effect happens even when the client hangs up.
                self._answers[key] = asyncio.ensure_future(method(request))
            answer = await asyncio.shield(self._answers[key])
            if fault and fault.after:
                raise GRPCError(Status[fault.after], "the answer was lost on purpose")
            await stream.send_message(answer)

        return called

    def _streaming(self, name: str, method: Streaming) -> Called:
        async def called(stream: "Stream[Message, Message]") -> None:
            request, fault = await self._open(name, stream)
            self._count(name, request)
            sent = 0
            async for message in method(request):
                if fault and fault.drop_after == sent:
                    raise GRPCError(Status.UNAVAILABLE, "the stream was dropped on purpose")
                await stream.send_message(message)
                sent += 1

        return called

    async def _open(
        self, name: str, stream: "Stream[Message, Message]"
    ) -> tuple[Message, Fault | None]:
        request = await stream.recv_message()
        sent = (_header(stream, "x-modal-token-id"), _header(stream, "x-modal-token-secret"))
        if sent != self._token:
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID is malformed or the secret is wrong")
        fault = self._faults.take(name)
        if fault:
            await asyncio.sleep(fault.delay_s)
            if fault.before:
                raise GRPCError(Status[fault.before], "refused on purpose")
        assert request is not None
        return request, fault

    def _count(self, name: str, request: Message) -> None:
        self.calls[name] += 1
        self.log.append((time.time(), name, request))


def _header(stream: "Stream[Message, Message]", name: str) -> str:
    assert stream.metadata is not None
    return str(stream.metadata.get(name, ""))
