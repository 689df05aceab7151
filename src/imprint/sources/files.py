"""Text and chat in files that the user names: on this machine, or anywhere on the internet."""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from yarl import URL

from imprint.artifacts import digest
from imprint.errors import ConfigError, RecordError
from imprint.progress import Progress
from imprint.records import Conversation
from imprint.sources import Source, reading

AT_ONCE = 8
"""Files that are downloaded at the same time."""

_LIST = ".txt"
_SUM = re.compile("sha256=[0-9a-fA-F]{64}")
_MAGIC = re.compile(r"[*?[]")

logger = logging.getLogger("imprint")


@dataclass(frozen=True)
class File:
    """A file, and where it can be fetched."""

    path: Path
    url: str = ""
    """May end in ``#sha256=`` and 64 hexadecimal digits. Empty for a file of the user."""


def present(files: Sequence[File], *, label: str) -> list[Path]:
    """Return the paths of ``files``, which are there once this returns.

    Raises:
        ArtifactError: A file cannot be downloaded.
        StorageError: A file may not be written.
    """
    missing = [file for file in files if file.url and not file.path.exists()]
    if missing:
        from imprint.sources import download

        download.fetch(missing, label=label)
    return [file.path for file in files]


class Files(Source):
    """Files of documents or conversations, read where they are; those at URLs are downloaded."""

    name: ClassVar[str] = "files"
    version: ClassVar[int] = 1

    def __init__(self, folder: Path, given: str) -> None:
        """Find out which files ``given`` stands for.

        Args:
            folder: Where downloads go.
            given: A path, a pattern, a URL, or the path of a .txt list of them, one a line;
                paths in a list start from its folder, and # begins a comment.

        Raises:
            ConfigError: There is no such file, or it is of another kind.
        """
        super().__init__(folder)
        self.given = given
        self.lists = [Path(given)] if given.endswith(_LIST) and not _is_url(given) else []
        if not self.lists:
            self.files = self._expanded(given, Path(), "source")
            return
        self.files = []
        path = self.lists[0]
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(f"source: {path}: cannot be read ({error}). Fix it.") from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line and not line.startswith("#"):
                self.files += self._expanded(line, path.parent, f"source: {path}:{number}")
        if not self.files:
            raise ConfigError(f"source: {path}: names no file. Write a path or URL on each line.")

    def _expanded(self, given: str, base: Path, where: str) -> list[File]:
        if _is_url(given):
            url = URL(given)
            name = _named(url.name, given, where)
            if url.fragment and not _SUM.fullmatch(url.fragment):
                raise ConfigError(
                    f"{where}: write a checksum as #sha256= and 64 digits from 0 to f."
                )
            return [File(self.folder / f"{digest(given)[:12]}-{name}", given)]
        path = base / _named(given, given, where)
        if path.is_file():
            return [File(path)]
        root = Path(path.anchor)
        found = sorted(root.glob(str(path.relative_to(root)))) if _MAGIC.search(given) else []
        files = [File(one) for one in found if one.is_file() and not one.name.startswith(".")]
        if not files:
            raise ConfigError(f"{where}: no file is at {path}. Check the path.")
        return files

    def gather(self, *, characters: int, seed: int, folder: Path) -> list[Path]:
        """Return as many of the files as it takes to hold ``characters``, in order."""
        found, total = [], 0
        with Progress("checking text", total=len(self.files), unit="characters") as progress:
            for start in range(0, len(self.files), AT_ONCE):
                for path in present(self.files[start : start + AT_ONCE], label=self.name):
                    size = reading.characters(path)
                    progress.advance(amount=size)
                    if not size:
                        logger.warning("%s: is empty", path)
                        continue
                    found.append(path)
                    total += size
                    if total >= characters:
                        return found
        if not found:
            raise RecordError(f"{self.given}: holds no text at all. Choose other files.")
        logger.warning(
            "%s: %d characters, fewer than the %d asked for", self.given, total, characters
        )
        return found

    def conversations(self, *, count: int, seed: int) -> Iterator[Conversation]:
        """Yield a seeded choice of lines or rows, each a list of messages or ``{"messages"}``."""
        return reading.choose(
            present(self.files, label=self.name),
            name=self.given,
            columns=["messages"],
            turns=_messages,
            count=count,
            seed=seed,
        )

    def local(self) -> list[Path]:
        """Return the files on this machine, and the list that names them."""
        return self.lists + [file.path for file in self.files if not file.url]


def looks_like_files(given: str) -> bool:
    """Tell whether ``given`` is rather a path, pattern, URL or list than the name of a source."""
    return "/" in given or given.endswith((*reading.SUFFIXES, _LIST))


def _is_url(given: str) -> bool:
    return given.startswith(("http://", "https://"))


def _named(name: str, given: str, where: str) -> str:
    if not name.endswith(reading.SUFFIXES):
        kinds = ", ".join(reading.SUFFIXES)
        raise ConfigError(
            f"{where}: {given!r} is not a file that can be read. Give one of {kinds}."
        )
    return name


def _messages(row: Any) -> object:
    return row.get("messages") if isinstance(row, dict) else row
