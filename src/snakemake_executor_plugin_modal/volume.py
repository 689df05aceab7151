"""What lies on the Volume: bring there what a job needs, and fetch what it made.

A record in ``.snakemake/modal/volume.json`` says of each file how it looked here and there when
they were last equal. What still looks so costs nothing; what does not is uploaded, of which Modal's
client sends only the blocks of 8 MiB that the Volume has not got.
"""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from snakemake_interface_common.exceptions import WorkflowError

from .patience import patiently
from .text import say, size, ticking, write

if TYPE_CHECKING:
    import modal
    from modal.types import FileEntry

TRANSFERS = 8
"""Files fetched at once: each is fetched in blocks, several at a time, by the client."""

TOLD_BYTES = 50_000_000
"""From here on a transfer is worth a line on the terminal."""


class Missing(WorkflowError):
    """What a job should have made is not on the Volume."""


@dataclass
class Seen:
    """A file, when it was last the same here and on the Volume."""

    size: int
    """Bytes."""
    mtime_ns: int
    """Here."""
    sha256: str | None = None
    there: tuple[int, int] | None = None
    """Bytes and time, in seconds, on the Volume; None if it is not there."""
    source: bool = False
    """Whether it describes the workflow: gone here, it goes there as well."""
    fresh: bool = False
    """Uploaded, and its time there not looked up since."""


class Folder:
    """The working directory's copy on a Volume, below ``prefix``."""

    def __init__(self, volume: "modal.Volume", prefix: str, where: str, record: Path) -> None:
        """Use the record if it speaks of the same place.

        Args:
            volume: Version 2.
            prefix: Folder on the Volume.
            where: Name of the place, for the record: environment, Volume and prefix.
            record: The file with the record.
        """
        self.volume, self.prefix, self.where, self.path = volume, prefix, where, record
        self._lock = asyncio.Lock()
        self._slots = asyncio.Semaphore(TRANSFERS)
        self._wanted: dict[str, str] = {}
        self._there_first: dict[str, FileEntry] | None = None
        self.seen: dict[str, Seen] = {}
        try:
            told = json.loads(record.read_text(encoding="utf-8"))
            same = told["where"] == where
            for name, values in told["files"].items():
                self.seen[name] = Seen(**values)
                if not same:
                    self.seen[name].there = None
        except (OSError, ValueError, TypeError, KeyError):
            self.seen = {}

    def digest(self, path: str) -> str:
        """Return the sha256 of a file here; read only if it has changed since the last time."""
        seen = self._look(path)
        if seen.sha256 is None:
            with Path(path).open("rb") as file:
                seen.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return seen.sha256

    async def bring(self, paths: Iterable[str], role: str = "") -> None:
        """Make the Volume hold these files as they are here.

        What several jobs want at the same time travels in one batch.

        Args:
            paths: Files, relative to the working directory.
            role: ``source`` for all that describes the workflow: what was so before and is not any
                more is removed. ``extra`` for what a job may have written there, undeclared: it
                stays as it is there if it is newer, and may be gone or half fetched here.

        Raises:
            WorkflowError: A file cannot be read, or the Volume takes no more.
        """
        mine = {path: role for path in paths if role != "extra" or not _half(path)}
        self._wanted |= mine
        async with self._lock:
            # Mine again: who came first may have failed with them.
            wanted, self._wanted = self._wanted | mine, {}
            if self._there_first is None:
                self._there_first = await self._list()
            if role == "source":
                await self._forget(mine)
            batch = []
            for path, each in wanted.items():
                try:
                    self._look(path).source |= each == "source"
                    batch += [path] if self._stale(path, each) else []
                except OSError as error:
                    if path in mine and role != "extra":  # else whose it is will say so
                        raise WorkflowError(f"{path} cannot be read: {error.strerror}.") from error
            if batch:
                await self._upload(batch)
            self.save()

    async def fetch(self, outputs: Sequence[str], folders: Iterable[str]) -> None:
        """Bring what a job made here, each file whole or not at all.

        Args:
            outputs: Files and folders.
            folders: Those of ``outputs`` that are folders; what was in them here is replaced.

        Raises:
            Missing: One of them is not on the Volume.
            WorkflowError: The disk here takes no more.
        """
        whole = set(folders)
        await asyncio.gather(*(self._fetch(path, path in whole) for path in outputs))
        self.save()

    async def fetch_any(self, paths: Iterable[str]) -> None:
        """Bring what is on the Volume at or below ``paths`` here: logs and benchmarks."""
        for path in paths:
            for entry in await self._entries(path):
                await self._file(self._here(entry), entry)
        self.save()

    def save(self) -> None:
        """Write the record."""
        files = {path: asdict(seen) for path, seen in sorted(self.seen.items())}
        write(self.path, json.dumps({"where": self.where, "files": files}))

    async def _list(self) -> "dict[str, FileEntry]":
        """Compare the record with what is on the Volume; who else wrote there is noticed so."""
        there = {self._here(entry): entry for entry in await self._entries("")}
        for path, seen in list(self.seen.items()):  # another thread may be adding to it
            entry = there.get(path)
            if seen.there is None or entry is None or entry.size != seen.there[0]:
                seen.there = None
            elif seen.fresh:
                seen.there, seen.fresh = (entry.size, entry.mtime), False
            elif entry.mtime != seen.there[1]:
                seen.there = None
        return there

    def _look(self, path: str) -> Seen:
        """Return the record of a file, begun anew if the file has changed here."""
        now = Path(path).stat()
        seen = self.seen.get(path)
        if seen is None or (seen.size, seen.mtime_ns) != (now.st_size, now.st_mtime_ns):
            source = seen is not None and seen.source
            seen = self.seen[path] = Seen(now.st_size, now.st_mtime_ns, source=source)
        return seen

    def _stale(self, path: str, role: str) -> bool:
        assert self._there_first is not None
        seen = self.seen[path]
        there = self._there_first.get(path) if role == "extra" else None
        return seen.there is None and (there is None or there.mtime < seen.mtime_ns // 10**9)

    async def _upload(self, batch: list[str]) -> None:
        total = sum(self.seen[path].size for path in batch)
        if total > TOLD_BYTES:
            say(f"uploading {len(batch)} files, {size(total)}")

        async def put() -> None:
            async with self.volume.batch_upload(force=True) as upload:
                for path in batch:
                    upload.put_file(path, self._there(path))

        async with ticking(lambda: f"uploading {size(total)}"):
            await patiently(put, say)
        for path in batch:
            seen = self.seen[path]
            seen.there, seen.fresh = (seen.size, 0), True

    async def _forget(self, sources: Iterable[str]) -> None:
        """Remove from the Volume what described the workflow and is gone here."""
        gone = {path for path, seen in list(self.seen.items()) if seen.source} - set(sources)
        for path in gone:
            if self.seen.pop(path).there and not Path(path).exists():
                await patiently(lambda path=path: self._remove(path), say)  # type: ignore[misc]

    async def _remove(self, path: str) -> None:
        try:
            await self.volume.remove_file.aio(self._there(path))
        except FileNotFoundError:
            return

    async def _fetch(self, path: str, folder: bool) -> None:
        entries = await self._entries(path)
        if not folder:
            if not entries:
                raise Missing(
                    f"The job says that it is done, but {path} is not on the Volume: it may have"
                    " been removed there meanwhile. Run again."
                )
            await self._file(path, entries[0])
            return
        new = Path(f"{path}.part")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        below = [PurePosixPath(self._here(entry)).relative_to(path) for entry in entries]
        await asyncio.gather(
            *(
                self._file(str(new / name), entry)
                for name, entry in zip(below, entries, strict=True)
            )
        )
        async with self._lock:  # nothing may be uploaded from it now
            shutil.rmtree(path, ignore_errors=True)
            new.replace(path)
        for name in below:
            self.seen[f"{path}/{name}"] = self.seen.pop(str(new / name))

    async def _file(self, path: str, entry: "FileEntry") -> None:
        """Fetch one file to ``path``, and remember that both are the same."""
        target = Path(path)
        part = target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.size > TOLD_BYTES:
            say(f"fetching {path}, {size(entry.size)}")

        async def get() -> None:
            with part.open("wb") as file:
                await self.volume.read_file_into_fileobj.aio(entry.path, file)

        def arrived() -> str:
            # Blocks arrive in any order: what counts is what the file takes of the disk.
            have = part.stat().st_blocks * 512 if part.exists() else 0
            return f"fetching {path}, {size(have)} of {size(entry.size)}"

        try:
            async with self._slots, ticking(arrived):
                await patiently(get, say)
            got = part.stat()
            if got.st_size != entry.size:
                raise WorkflowError(
                    f"{path}: {got.st_size} of {entry.size} bytes arrived. Run again."
                )
            part.replace(target)
        except OSError as error:
            raise WorkflowError(
                f"{path} cannot be written: {error.strerror}. Make room, then run again: what the"
                " job made is on the Volume."
            ) from error
        finally:
            part.unlink(missing_ok=True)
        there = (entry.size, entry.mtime)
        self.seen[path] = Seen(got.st_size, got.st_mtime_ns, there=there)

    async def _entries(self, path: str) -> "list[FileEntry]":
        """Return the files at or below ``path`` on the Volume, none if there is nothing."""
        from modal.exception import NotFoundError
        from modal.types import FileEntryType

        async def listed() -> "list[FileEntry]":
            try:
                found = [entry async for entry in self.volume.iterdir.aio(self._there(path))]
            except (NotFoundError, FileNotFoundError):
                return []
            return [entry for entry in found if entry.type == FileEntryType.FILE]

        return await patiently(listed, say)

    def _there(self, path: str) -> str:
        return f"/{self.prefix}/{path}" if path else f"/{self.prefix}"

    def _here(self, entry: "FileEntry") -> str:
        return os.path.relpath("/" + entry.path.lstrip("/"), f"/{self.prefix}")


def _half(path: str) -> bool:
    """Tell whether a file is being fetched, alone or with its folder."""
    return any(name.endswith(".part") for name in PurePosixPath(path).parts)
