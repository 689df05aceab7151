"""Downloads that go on where they stopped, and are checked when they are there.

A file that is under way is a hidden neighbour, ``.name.part``, locked by the process at work on
it. ``.name.json`` says which state of the file on the server the part belongs to.
"""

import asyncio
import errno
import fcntl
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO

import aiohttp
from yarl import URL

from imprint import artifacts
from imprint.errors import ArtifactError, StorageError
from imprint.progress import Progress
from imprint.providers.wire import CONNECT_S
from imprint.sources.answer import Later, Refused, State, told
from imprint.sources.catalog import endpoint
from imprint.sources.files import AT_ONCE, File

ATTEMPTS = 6
"""Attempts in a row that may bring nothing new, before a download is given up."""

FIRST_WAIT_S = 1.0
"""Wait before the second attempt; it doubles with each: 31 s in all."""

LONGEST_WAIT_S = 300.0
"""Longest wait, also if the server asks for more: the hub counts requests over five minutes."""

SILENCE_S = 60.0
"""How long a server may send nothing."""

_CHUNK = 1 << 20
_POLL_S = 0.2

logger = logging.getLogger("imprint")


def fetch(files: Sequence[File], *, label: str) -> None:
    """Download ``files``, some at a time; none that is there already.

    The variables of the environment count: ``HF_ENDPOINT``, ``HF_TOKEN``, ``HTTPS_PROXY``.

    Args:
        files: With URLs. Sums after ``#sha256=``, or told by the hub, are checked.
        label: What is downloaded, for the progress.

    Raises:
        ArtifactError: A file cannot be had, or is not what it should be.
        StorageError: The disk is full, or may not be written.
    """
    progress = Progress(f"download of {label}", total=100 * len(files), unit="bytes", percent=True)
    with progress:
        asyncio.run(_fetch(files, progress))


async def _fetch(files: Sequence[File], progress: Progress) -> None:
    waiting = deque(files)
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "imprint", "Accept-Encoding": "identity"},
        auto_decompress=False,
        middlewares=[_with_token],
        trust_env=True,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S),
    ) as session:

        async def work() -> None:
            while waiting:
                await _Download(waiting.popleft(), session, progress).run()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(files))):
                    group.create_task(work())
        except ExceptionGroup as several:
            raise several.exceptions[0] from None


async def _with_token(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Show the token to the hub, and to nobody it sends us to."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if token and request.url.origin() == URL(endpoint()).origin():
        request.headers["Authorization"] = f"Bearer {token}"
    return await handler(request)


class _Download:
    """One file on its way."""

    def __init__(self, file: File, session: aiohttp.ClientSession, progress: Progress) -> None:
        self.url, _, self.sha256 = file.url.partition("#sha256=")
        self.shown = str(URL(self.url).with_user(None).with_query(None))
        self.path, self.session, self.progress = file.path, session, progress
        self.part = file.path.with_name(f".{file.path.name}.part")
        self.about = file.path.with_name(f".{file.path.name}.json")
        self.percent = self.unshown = 0

    async def run(self) -> None:
        """Download the file, or wait for the process that does."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while not self.path.exists():
                with self.part.open("ab") as part:
                    while not _locked(part):
                        await asyncio.sleep(_POLL_S)
                    if os.fstat(part.fileno()).st_nlink and not self.path.exists():
                        await self._work(part)
            self.part.unlink(missing_ok=True)  # opened just after another process was done
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full("more") from None
            raise artifacts.storage_error(self.path, error) from error
        self._count(0, 100)

    async def _work(self, part: IO[bytes]) -> None:
        """Try until the file is there."""
        failures, most, damaged = 0, _size(part), False
        while True:
            try:
                wanted = await self._attempt(part)
                found = await asyncio.to_thread(artifacts.sha256, self.part) if wanted else ""
                if found == wanted:
                    break
                part.truncate(0)
                if damaged:
                    raise ArtifactError(
                        f"{self.shown}: arrived damaged twice: its sha256 is {found}, "
                        f"not {wanted}. Try later, or put a good copy at {self.path}."
                    )
                damaged = True
                raise Later("arrived damaged")
            except Later as later:
                failures = 1 if _size(part) > most else failures + 1
                most = max(most, _size(part))
                if failures == ATTEMPTS:
                    raise ArtifactError(
                        f"{self.shown}: cannot be downloaded: {later}. Check the network and run "
                        f"again: what is there is kept. {self._otherwise()}"
                    ) from None
                pause = max(FIRST_WAIT_S * 2 ** (failures - 1), later.wait_s or 0)
                pause = min(pause, LONGEST_WAIT_S)
                logger.warning("%s: %s; again in %.0f s", self.shown, later, pause)
                await asyncio.sleep(pause)
        os.fsync(part.fileno())
        self.part.rename(self.path)
        self.about.unlink(missing_ok=True)

    async def _attempt(self, part: IO[bytes]) -> str:
        """Get what is missing; return the sha256 that the whole should have, empty if unknown.

        Raises:
            Later: Something is missing still.
            ArtifactError: It will never come.
        """
        before = self._begun(part)
        have = _size(part)
        if before and have == before.size:
            return before.sha256
        headers = {"Range": f"bytes={have}-"} if before else {}
        if before and before.validator:
            headers["If-Range"] = before.validator
        try:
            async with self.session.get(self.url, headers=headers) as response:
                if response.status == 416:
                    part.truncate(0)  # the file is shorter than it was
                state, start = told(response, self.sha256)
                if start != have or (before and state.name not in ("", before.name)):
                    part.truncate(0)
                    if start:
                        raise Later("is not the file it was")
                    have = 0
                if not have:
                    self.about.write_text(json.dumps(asdict(state)), encoding="utf-8")
                size = state.size or 0
                if size - have > shutil.disk_usage(self.path.parent).free:
                    raise self._full(f"{(size - have) / 1e6:,.0f} MB more")
                async for chunk in response.content.iter_chunked(_CHUNK):
                    part.write(chunk)
                    have += len(chunk)
                    self._count(len(chunk), min(99, 100 * have // size) if size else 0)
        except Refused as refused:
            raise ArtifactError(f"{self.shown}: {refused} {self._otherwise()}") from None
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            raise Later(str(error).strip() or type(error).__name__) from None
        finally:
            part.flush()
        if size and have != size:
            if have > size:
                part.truncate(0)
            raise Later(f"{have} of {size} bytes arrived")
        return state.sha256

    def _begun(self, part: IO[bytes]) -> State | None:
        """Return which file the part belongs to; None, and no part, if nobody knows."""
        try:
            state = State(**json.loads(self.about.read_bytes()))
        except (OSError, ValueError, TypeError):
            state = None
        if _size(part) and state and state.name:
            return state
        part.truncate(0)
        return None

    def _otherwise(self) -> str:
        return (
            f"Or put the file at {self.path} by hand, set HF_ENDPOINT to a mirror of the hub, or "
            "name files of your own as the source."
        )

    def _full(self, needed: str) -> StorageError:
        return StorageError(
            f"{self.path}: the disk is full: the file needs {needed}. Free some space, or make "
            f"{self.path.parent} a link to another disk, and run again: what is there is kept."
        )

    def _count(self, amount: int, percent: int) -> None:
        """Show ``amount`` more bytes once they are another percent."""
        self.unshown += amount
        while self.percent < percent:
            self.percent += 1
            self.progress.advance(amount=self.unshown)
            self.unshown = 0


def _size(part: IO[bytes]) -> int:
    return os.fstat(part.fileno()).st_size


def _locked(part: IO[bytes]) -> bool:
    """Tell whether the lock is ours now."""
    try:
        fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
