"""The committed content of volumes: real folders, which the client sees as 8 MiB blocks."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from modal_proto import api_pb2 as pb
from modal_proto.api_pb2 import VolumePutFiles2Request

BLOCK = 8 * 1024 * 1024
NOTHING = hashlib.sha256().digest()  # a block of zeros: trailing zeros do not travel

Snapshot = dict[str, tuple[int, int, int] | None]
"""What a folder holds: (size, modification time in ns, inode) of files, None of folders."""


class Full(Exception):
    """The volume has no room for what was to be written."""


class Room:
    """How much all volumes together still take; None is endless."""

    def __init__(self) -> None:
        self.left: int | None = None

    def take(self, size: int) -> None:
        """Use up ``size`` bytes.

        Raises:
            Full: There is less room; nothing is used up.
        """
        if self.left is not None:
            if size > self.left:
                raise Full(f"No space left on device: {size} bytes wanted, {self.left} left")
            self.left -= size


@dataclasses.dataclass(frozen=True)
class Block:
    """Where the content of a block lies."""

    path: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Return the content, without its trailing zeros."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)


class Volume:
    """One volume, version 2."""

    def __init__(self, name: str, folder: Path, spare: Path, room: Room) -> None:
        """Keep ``folder``; ``spare`` is on the same disk and holds what is not committed yet."""
        self.name, self.folder = name, folder
        self.id = f"vo-{hashlib.sha256(name.encode()).hexdigest()[:22]}"
        self._spare, self._room = spare, room
        self._lock = threading.Lock()
        self._hashed: dict[tuple[Path, tuple[int, int, int]], list[tuple[bytes, Block]]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        spare.mkdir(parents=True, exist_ok=True)

    def find(self, path: str) -> Path:
        """Return where ``path`` of the volume lies, also when nothing is there."""
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        return self.folder.joinpath(*parts)

    def blocks(self) -> dict[bytes, Block]:
        """Return all blocks, by the SHA-256 of their content; hashes only what has changed."""
        held: dict[bytes, Block] = {}
        kept: dict[tuple[Path, tuple[int, int, int]], list[tuple[bytes, Block]]] = {}
        for name, mark in snapshot(self.folder).items():
            path = self.folder / name
            if mark is not None and not path.is_symlink():
                kept[path, mark] = self._hashed.get((path, mark)) or hashed(path)
                held.update(kept[path, mark])
        self._hashed = kept
        return held

    def remove(self, path: str, *, recursive: bool) -> None:
        """Delete a file, or a folder with all that is in it.

        Raises:
            FileNotFoundError: Nothing is there.
            IsADirectoryError: It is a folder, and ``recursive`` is not set.
        """
        target = self.find(path)
        with self._lock:
            if target.is_dir() and not recursive:
                raise IsADirectoryError(path)
            delete(target)

    def put(
        self, files: Sequence[VolumePutFiles2Request.File], received: dict[bytes, Block]
    ) -> list[tuple[int, int]]:
        """Write ``files`` out of blocks that are here, or in ``received``.

        Returns:
            File and block number of what is missing; if anything is, nothing was written.
        """
        with self._lock:
            held = {NOTHING: Block(self.folder, 0, 0)} | received | self.blocks()
            lacking = {
                block.contents_sha256: (i, j)
                for i, file in reversed(list(enumerate(files)))
                for j, block in reversed(list(enumerate(file.blocks)))
                if block.contents_sha256 not in held
            }
            if lacking:
                return sorted(lacking.values())
            for file in files:
                draft = self._spare / "put"
                with draft.open("wb") as out:
                    for j, block in enumerate(file.blocks):
                        source = held[block.contents_sha256]
                        out.seek(j * BLOCK)
                        out.write(source.read() if source.size else b"")
                    out.truncate(file.size)
                draft.chmod(file.mode or 0o644)
                target = self.find(file.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(target)
            return []

    def commit(self, work: Path, sub_path: str, before: Snapshot) -> Snapshot:
        """Bring what changed in ``work`` since ``before`` into the volume: all of it or nothing.

        Returns:
            What ``work`` held; the next commit starts from there.

        Raises:
            Full: The volume has no room for the changes.
        """
        with self._lock:
            now, root = snapshot(work), self.find(sub_path)
            root.mkdir(parents=True, exist_ok=True)
            changed = [name for name in now if now[name] != before.get(name, ())]
            self._room.take(sum(mark[0] for name in changed if (mark := now[name])))
            drafts: dict[str, Path] = {}
            for number, name in enumerate(changed):
                if now[name] is not None:
                    draft = self._spare / f"commit-{number}"
                    # A file that was deleted meanwhile is left to the next commit.
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy2(work / name, draft, follow_symlinks=False)
                        drafts[name] = draft
            for name in changed:
                if name in before and (before[name] is None) != (now[name] is None):
                    delete(root / name)  # a folder became a file, or the other way round
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                if now[name] is None:
                    (root / name).mkdir(exist_ok=True)
                elif name in drafts:
                    drafts[name].replace(root / name)
            for name in sorted(before.keys() - now.keys(), reverse=True):  # children first
                with contextlib.suppress(OSError):
                    (root / name).rmdir() if before[name] is None else (root / name).unlink()
            return now

    def entries(self, path: str, *, recursive: bool) -> list[pb.FileEntry]:
        """List a folder, or one file.

        Raises:
            FileNotFoundError: Nothing is there.
        """
        top = self.find(path)
        if not top.is_dir():
            return [self._entry(top)]
        names = snapshot(top) if recursive else [entry.name for entry in os.scandir(top)]
        return [self._entry(top / name) for name in sorted(names)]

    def _entry(self, path: Path) -> pb.FileEntry:
        status = path.lstat()
        kind = pb.FileEntry.FILE
        if stat.S_ISDIR(status.st_mode):
            kind = pb.FileEntry.DIRECTORY
        elif stat.S_ISLNK(status.st_mode):
            kind = pb.FileEntry.SYMLINK
        return pb.FileEntry(
            path=path.relative_to(self.folder).as_posix(),
            type=kind,
            mtime=int(status.st_mtime),
            size=0 if kind == pb.FileEntry.DIRECTORY else status.st_size,
        )


def delete(path: Path) -> None:
    """Delete a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def snapshot(folder: Path) -> Snapshot:
    """Return what ``folder`` holds, by relative path."""
    held: Snapshot = {}
    for top, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(top, name)
            with contextlib.suppress(FileNotFoundError):  # deleted while we look
                status = path.lstat()
                mark = (status.st_size, status.st_mtime_ns, status.st_ino)
                is_folder = stat.S_ISDIR(status.st_mode)
                held[path.relative_to(folder).as_posix()] = None if is_folder else mark
    return held


def hashed(path: Path) -> list[tuple[bytes, Block]]:
    """Return the blocks of a file, each with the SHA-256 of its content less trailing zeros."""
    blocks: list[tuple[bytes, Block]] = []
    with path.open("rb") as file:
        while content := file.read(BLOCK):
            content = content.rstrip(b"\0")
            block = Block(path, len(blocks) * BLOCK, len(content))
            blocks.append((hashlib.sha256(content).digest(), block))
    return blocks
