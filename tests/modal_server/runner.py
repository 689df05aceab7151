"""The program in a container: runs one function on one input and writes down what came of it.

Every container is a fork of one process, which has loaded Modal's client: that takes a second.
"""

import asyncio
import atexit
import contextlib
import gc
import importlib
import inspect
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modal._serialization import (
    deserialize,
    deserialize_data_format,
    pickle_exception,
    pickle_traceback,
    serialize_data_format,
)
from modal_proto import api_pb2 as pb


def main(folder: Path) -> None:
    """Read function.pb and input.pb of ``folder``, write output.pb."""
    function = pb.Function.FromString((folder / "function.pb").read_bytes())
    given = pb.FunctionInput.FromString((folder / "input.pb").read_bytes())
    output = pb.FunctionGetOutputsItem(data_format=given.data_format)
    try:
        arguments, named = deserialize_data_format(given.args, given.data_format, None)
        value = body(function)(*arguments, **named)
        if inspect.isawaitable(value):
            value = asyncio.run(_awaited(value))
        output.result.status = pb.GenericResult.GENERIC_STATUS_SUCCESS
        output.result.data = serialize_data_format(value, given.data_format)
    except KeyboardInterrupt:
        sys.exit(130)  # the container is wanted back; no output, so the input runs again
    except BaseException as error:
        traceback.print_exc()
        output.data_format = pb.DATA_FORMAT_PICKLE
        output.result.status = pb.GenericResult.GENERIC_STATUS_FAILURE
        output.result.exception = repr(error)
        output.result.traceback = traceback.format_exc()
        output.result.data = pickle_exception(error)
        frames, sources = pickle_traceback(error, "loopback")
        output.result.serialized_tb, output.result.tb_line_cache = frames, sources
    draft = folder / "output.part"
    draft.write_bytes(output.SerializeToString())
    draft.replace(folder / "output.pb")


def body(function: pb.Function) -> Callable[..., Any]:
    """Return what is to be called."""
    if function.definition_type == pb.Function.DEFINITION_TYPE_SERIALIZED:
        loaded = deserialize(function.function_serialized, None)
    else:
        module = importlib.import_module(function.module_name)
        loaded = getattr(module, function.implementation_name or function.function_name)
    # In a module, the name belongs to Modal's object, which holds the plain function.
    raw: Callable[..., Any] = getattr(loaded, "get_raw_f", lambda: loaded)()
    return raw


def ordered(line: socket.socket) -> Path:
    """Fork for each order on ``line``; return, in the fork, the folder of the order.

    The statuses of those that end are reported. At the end of the line all that run are killed: the
    server has ended, or was.
    """
    ends, end = os.pipe()
    os.set_blocking(end, False)
    signal.set_wakeup_fd(end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reports: dict[int, int] = {}
    atexit.register(gc.freeze)  # or to leave would take a third of a second
    while True:
        ready, _, _ = select.select([line.fileno(), ends], [], [])
        if ends in ready:
            os.read(ends, 1024)
            _report(reports)
        if line.fileno() not in ready:
            continue
        name, descriptors, *_ = socket.recv_fds(line, 4096, 3)
        if not name:
            break
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for held in (line.fileno(), ends, end, *reports.values()):
                os.close(held)
            return _settled(Path(os.fsdecode(name)), *descriptors)
        stdout, stderr, reports[pid] = descriptors
        os.close(stdout)
        os.close(stderr)
        _tell(reports[pid], pid)
    for pid in reports:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may not lead a group yet
            os.killpg(pid, signal.SIGKILL)
    sys.exit()


def _report(reports: dict[int, int]) -> None:
    """Tell of those that have ended with what."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            break
        report = reports.pop(pid)
        _tell(report, os.waitstatus_to_exitcode(status))
        os.close(report)


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the server was killed
        os.write(report, f"{number}\n".encode())


def _settled(order: Path, stdout: int, stderr: int, report: int) -> Path:
    """Become what a process of its own would be."""
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for held in (stdout, stderr, report):
        os.close(held)
    told = json.loads(order.read_text(encoding="utf-8"))
    os.chdir(told["work"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.path[:0] = os.environ["PYTHONPATH"].split(":")
    return Path(told["folder"])


async def _awaited(value: Any) -> Any:
    return await value


if __name__ == "__main__":
    main(ordered(socket.socket(fileno=int(sys.argv[1]))))
