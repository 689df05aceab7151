"""What became of a call, in one word."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .patience import brief

if TYPE_CHECKING:
    import modal


@dataclass
class Outcome:
    """What became of a call."""

    kind: str
    """``running``, ``ended``, ``timeout``, ``lost`` or ``gone``."""
    result: dict[str, Any] = field(default_factory=dict)
    """What the function returned, if it ended."""
    reason: str = ""


async def outcome_of(call: "modal.FunctionCall[Any]", timeout: float | None) -> Outcome:
    """Return what became of ``call``, waiting for ``timeout`` seconds, or for as long as it takes.

    Raises:
        Exception: Modal could not be asked.
    """
    from modal import exception as of

    try:
        return Outcome("ended", result=await call.get.aio(timeout=timeout))
    except of.FunctionTimeoutError:
        return Outcome("timeout")
    except (of.NotFoundError, of.OutputExpiredError) as error:
        return Outcome("gone", reason=brief(error))
    except of.InputCancellation:
        return Outcome("lost", reason="cancelled")
    except (of.RemoteError, of.InternalFailure, of.ExecutionError) as error:
        return Outcome("lost", reason=brief(error))
    except TimeoutError:  # Python's own, not Modal's: it is not over yet
        return Outcome("running")
