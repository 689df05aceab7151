"""Which errors of Modal pass by themselves, and what to do about the others."""

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from snakemake_interface_common.exceptions import WorkflowError

T = TypeVar("T")

PATIENCE_S = 12 * 3600
"""How long a connection may be gone; the time in which a laptop sleeps does not count."""

PAUSE_S = (0.2, 30.0)
"""First and longest pause between two attempts."""

SAID_EVERY_S = 600.0
"""Between two lines about the same trouble."""

SERVER_ERROR = re.compile(r"status (429|5\d\d)\b")
"""How the client words what a store of blocks answered."""

FULL = re.compile(r"\b(full|quota|space|storage|too many files)\b", re.IGNORECASE)
"""Words by which a Volume that takes no more differs from a rate limit."""


def transient(error: BaseException) -> bool:
    """Tell whether the same may work if it is tried again."""
    from aiohttp import ClientError
    from grpclib.exceptions import StreamTerminatedError
    from modal import exception as of

    if isinstance(error, of.ResourceExhaustedError):
        return not FULL.search(str(error))
    if isinstance(error, of.ExecutionError):
        return SERVER_ERROR.search(str(error)) is not None
    # Of Python's own errors those that sockets raise; a full disk is an OSError as well.
    ours = (ClientError, StreamTerminatedError, ConnectionError, TimeoutError, socket.gaierror)
    return isinstance(error, (of.ServiceError, of.InternalError, of.ConnectionError, *ours))


async def patiently(action: Callable[[], Awaitable[T]], say: Callable[[str], None]) -> T:
    """Return what ``action`` returns, trying it again for as long as its errors may pass.

    Raises:
        WorkflowError: Modal refused for good; the message says what to do.
        Exception: What ``action`` raised last, if that is no error of Modal's.
    """
    began, said, pause = time.monotonic(), 0.0, PAUSE_S[0]
    while True:
        try:
            return await action()
        except Exception as error:
            now = time.monotonic()
            if not transient(error) or now - began > PATIENCE_S:
                known = explained(error)
                raise known from (None if known is error else error)
            if now - began > 1 and (not said or now - said > SAID_EVERY_S):
                say(f"no answer from Modal ({brief(error)}); trying again")
                said = now
        await asyncio.sleep(pause)
        pause = min(1.5 * pause, PAUSE_S[1])


def explained(error: Exception) -> Exception:
    """Return ``error`` with what to do about it, if it is one of Modal's."""
    from modal import exception as of

    match error:
        case of.AuthError() | of.PermissionDeniedError():
            hint = (
                "Run `modal setup` once, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET."
                " (Rules without gpu need no account.)"
            )
        case of.ResourceExhaustedError():
            hint = (
                "The Volume takes no more: look with `modal volume ls`, make room with"
                " `modal volume rm`, and run again."
            )
        case of.NotFoundError():
            hint = "Check modal-environment and modal-volume, then run again."
        case of.ImageBuildError():
            hint = (
                "The image could not be built: `modal image logs"
                f" {error.image_id}` shows why; check modal-requirements and modal-packages."
            )
        case of.InvalidError():
            hint = "Change the rule's resources or the modal- settings accordingly."
        case of.Error():
            hint = "Run again; what is done on the Volume stays."
        case _:
            return error
    return WorkflowError(f"Modal: {brief(error)}. {hint}")


def brief(error: BaseException) -> str:
    """Return the first line of what ``error`` says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
