"""What follows when a server refuses: the table of every error that is not an answer."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from imprint.errors import ProviderBusy, ProviderError

Trouble = Literal["key", "credit", "model", "address", "quota", "limit", "busy", "body", "blocked"]
"""What an error is about."""

LONG_S = 2 * 3600.0
"""A wait from which a limit is no matter of pace: the quota of the day is used up."""

KEPT = "Every answer so far is kept: run the same command again then, and it goes on from here."


class Declined(ProviderError):
    """The server refuses this request; another one may do."""

    def __init__(self, message: str, flaw: str | None) -> None:
        """Say what the server said, and the flaw of the reply; None if no request would do."""
        super().__init__(message)
        self.flaw = flaw


def trouble(status: int) -> Trouble:
    """Return what a status is about, where the server's own words say nothing more exact."""
    match status:
        case 401 | 403:
            return "key"
        case 402:
            return "credit"
        case 404 | 410:
            return "model"
        case 405 | 407:
            return "address"
        case 408 | 409 | 425:
            return "busy"
        case 429:
            return "limit"
        case _ if status >= 500:
            return "busy"
        case _ if status >= 400:
            return "body"
        case _:  # a redirect
            return "address"


def verdict(
    about: Trouble, said: str, *, wait: float | None, advice: Mapping[Trouble, str], resets: str
) -> ProviderError:
    """Return the error that a trouble amounts to, with what to do about it.

    Args:
        about: The trouble.
        said: Who answered what.
        wait: Seconds after which the server wants to be asked again, if it says so.
        advice: What to do about ``key`` and ``model``, as sentences.
        resets: When the quota of a day is renewed, if the server does not say.
    """
    if about == "limit" and wait is not None and wait > LONG_S:
        about = "quota"
    match about:
        case "key" | "model":
            error = f"{said}. {advice[about]}"
            return Declined(error, None) if about == "model" else ProviderError(error)
        case "credit":
            return ProviderError(f"{said}. Add credit, or a way to pay, to the account. {KEPT}")
        case "address":
            return ProviderError(f"{said}. Check base_url: requests are not taken there.")
        case "quota":
            when = resets if wait is None or wait <= LONG_S else _when(wait)
            return ProviderError(f"{said}. The day's quota is used up; it resets {when}. {KEPT}")
        case "limit" | "busy":
            return ProviderBusy(said, wait_s=wait, limit=about == "limit")
        case "body":
            return Declined(said, "refused request")
        case "blocked":
            return Declined(said, "blocked")


def complaint(data: dict[str, Any]) -> dict[str, Any]:
    """Return the error in a body as an object with a message, however the server spells it."""
    error = data.get("error")
    if isinstance(error, dict):
        return error
    return {"message": error or data.get("message") or data.get("detail"), "code": data.get("code")}


def code(error: dict[str, Any]) -> int:
    """Return the status that an error inside a successful response names; 502 if none."""
    try:
        found = int(error.get("code") or 0)
    except ValueError:
        found = 0
    return found if 400 <= found < 600 else 502


def _when(wait: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=wait)
    return f"at {moment:%H:%M} UTC on {moment:%B} {moment.day}"
