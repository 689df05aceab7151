"""What a server says of a file that is asked for."""

import re
from dataclasses import dataclass

import aiohttp

from imprint.providers.wire import wait_s

BUSY = {408, 425, 429, 500, 502, 503, 504}
"""What is answered where asking again may help."""

_SHA256 = re.compile("[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Later(Exception):
    """Nothing came of it; it may if the server is asked again."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        """Say why, and after how many seconds the server wants to be asked again."""
        super().__init__(reason)
        self.wait_s = wait_s


class Refused(Exception):
    """Nothing will ever come of it; says what the server did, and what to do about it."""


@dataclass(frozen=True)
class State:
    """Which file it is that a server sends: files change."""

    size: int | None
    """In bytes."""
    sha256: str
    validator: str
    """Its ETag, or when it was last changed; empty if unknown, as the sha256."""

    @property
    def name(self) -> str:
        """What differs between two states of a file; empty if that cannot be told."""
        return self.sha256 or self.validator


def told(response: aiohttp.ClientResponse, sha256: str) -> tuple[State, int]:
    """Return which file a server sends, and the byte that it begins with.

    The hub knows a file's sha256 and size; they come with the redirect to the bytes.

    Args:
        response: The last of the answers.
        sha256: What the user says that the sum is; empty if nothing.

    Raises:
        Later: It does not send it now.
        Refused: It never will.
    """
    _accept(response)
    sizes = [response.content_length]
    for stop in response.history:
        linked = stop.headers.get("X-Linked-ETag", "").strip('"')
        sha256 = sha256 or (linked if _SHA256.fullmatch(linked) else "")
        size = stop.headers.get("X-Linked-Size", "")
        sizes.append(int(size) if size.isdigit() else None)
    start = 0
    if response.status == 206:
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        if not found:
            raise Later("the server sent a part, but did not say which")
        start = int(found[1])
        sizes[0] = None if found[2] == "*" else int(found[2])
    tag = response.headers.get("ETag", "W/")
    validator = response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
    known = next((size for size in sizes if size is not None), None)
    return State(known, sha256.lower(), validator), start


def _accept(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in BUSY or status == 416:
        raise Later(f"the server answered {status}", wait_s(response.headers))
    if status in (401, 403):
        advice = "Accept its terms on its page, and put a token of yours into HF_TOKEN."
    elif status in (404, 410):
        advice = "Check the address, and HF_ENDPOINT if it is set."
    elif status not in (200, 206):
        advice = "Look at it in a browser."
    elif response.content_type == "text/html":
        raise Refused("the server sent a web page, not the file. Look at it in a browser.")
    else:
        return
    raise Refused(f"the server answered {status}. {advice}")
