"""The program in a container: runs one function on one input and writes down what came of it."""

import asyncio
import importlib
import inspect
import os
import signal
import sys
import threading
import time
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


def watch(server: int) -> None:
    """Die with the server, even if that was killed."""
    while os.getppid() == server:
        time.sleep(1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


async def _awaited(value: Any) -> Any:
    return await value


if __name__ == "__main__":
    threading.Thread(target=watch, args=[int(sys.argv[2])], daemon=True).start()
    main(Path(sys.argv[1]))
