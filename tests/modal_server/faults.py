"""What goes wrong, how often."""

import dataclasses
from collections import defaultdict
from typing import TypeVar


@dataclasses.dataclass
class Fault:
    """How the next calls of an RPC go wrong."""

    before: str | None
    """gRPC status of a refusal that leaves no effect."""

    after: str | None
    """gRPC status that hides the answer, while the effect stays."""

    times: int
    """How many calls go wrong."""

    delay_s: float
    """Seconds that the call waits before anything happens."""

    drop_after: int | None
    """Messages after which a stream breaks."""


@dataclasses.dataclass
class HttpFault:
    """How the next PUTs or GETs go wrong."""

    status: int
    times: int


T = TypeVar("T", Fault, HttpFault)


class Faults:
    """Faults to come; each call uses one up."""

    def __init__(self) -> None:
        self._rpcs: defaultdict[str, list[Fault]] = defaultdict(list)
        self._http: defaultdict[str, list[HttpFault]] = defaultdict(list)

    def add(self, rpc: str, fault: Fault) -> None:
        """Let the next calls of ``rpc`` go wrong, after those that already do."""
        self._rpcs[rpc].append(fault)

    def add_http(self, method: str, fault: HttpFault) -> None:
        """Let the next requests with ``method`` (put, get) go wrong."""
        self._http[method.lower()].append(fault)

    def take(self, rpc: str) -> Fault | None:
        """Return the fault of this call of ``rpc``, if it has one."""
        return _take(self._rpcs[rpc])

    def take_http(self, method: str) -> int | None:
        """Return the status that this request fails with, if it does."""
        fault = _take(self._http[method.lower()])
        return fault.status if fault else None


def _take(faults: list[T]) -> T | None:
    if not faults:
        return None
    faults[0].times -= 1
    return faults[0] if faults[0].times > 0 else faults.pop(0)
