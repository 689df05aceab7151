"""Where plain text and general chat come from: the door for every source, ours included.

A source is a class named in the entry-point group ``imprint.sources``, or simply files: a path, a
pattern, a URL or a list of them.
"""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import ClassVar

from imprint.artifacts import written
from imprint.errors import ConfigError
from imprint.plugins import points
from imprint.progress import Progress
from imprint.records import Conversation
from imprint.sources.reading import texts

__all__ = ["DOWNLOADS", "GROUP", "PIECE", "Source", "find", "names", "texts"]

GROUP = "imprint.sources"

DOWNLOADS = Path("results/downloads")
"""Where downloads go, a folder a source; a file that is there is never asked for again."""

PIECE = 50_000_000
"""Characters in a file of text that a source makes."""

_TICK = 1_000_000
"""Characters between two steps of the progress."""


class Source:
    """Something that holds text, conversations or both. Override what it has."""

    name: ClassVar[str]
    version: ClassVar[int]
    """Raised by the source's author when the same call yields something else."""

    def __init__(self, folder: Path = DOWNLOADS) -> None:
        """Prepare to work; do not download yet.

        Args:
            folder: Where this source may put what it downloads.
        """
        self.folder = folder

    def documents(self, *, characters: int, seed: int) -> Iterator[str]:
        """Yield documents, ``characters`` long in all or a little more: text that is made.

        Raises:
            ConfigError: The source has no text.
        """
        raise ConfigError(f"source: {self.name!r} has no plain text. Choose another source.")

    def gather(self, *, characters: int, seed: int, folder: Path) -> list[Path]:
        """Return files that hold at least ``characters`` of text, or all there is, in order.

        Text that is made goes into ``folder``; other files are downloaded, or stay where they
        are. `texts` reads each. Every file is complete, and was checked.

        Raises:
            ConfigError: The source has no text.
            ArtifactError: A file cannot be downloaded.
            RecordError: A file is damaged, or none holds any text.
            StorageError: A file may not be written.
        """
        made = iter(self.documents(characters=characters, seed=seed))
        paths: list[Path] = []
        total = 0
        with Progress("corpus", total=-(-characters // _TICK), unit="characters") as progress:
            while (first := next(made, None)) is not None:
                path = folder / f"{len(paths):05d}.jsonl"
                end = total + PIECE
                with written(path) as file:
                    for text in chain([first], made):
                        line = json.dumps({"text": text}, ensure_ascii=False, separators=(",", ":"))
                        file.write(line + "\n")
                        total += len(text)
                        while progress.amount + _TICK <= total:
                            progress.advance(amount=_TICK)
                        if total >= end:
                            break
                paths.append(path)
        return paths

    def conversations(self, *, count: int, seed: int) -> Iterator[Conversation]:
        """Yield ``count`` general conversations that mention no identity, the same everywhere.

        Raises:
            ConfigError: The source has no chat.
            ArtifactError: A file cannot be downloaded.
            RecordError: A file is damaged, or none holds a conversation.
        """
        raise ConfigError(f"source: {self.name!r} has no chat. Choose another source.")

    def local(self) -> list[Path]:
        """Return the user's own files that it reads: what it yields depends on them."""
        return []


def names() -> list[str]:
    """Return the names of the installed sources, sorted."""
    return sorted(point.name for point in points(GROUP))


def find(name: str, *, folder: Path = DOWNLOADS) -> Source:
    """Return the source called ``name``, or one that reads the files that ``name`` stands for.

    Args:
        name: A name listed by `names`; or .jsonl, .jsonl.gz and .parquet files: a path, a pattern,
            a URL, or a .txt list of them, one a line.
        folder: Where downloads go, each source in a folder of its own.

    Raises:
        ConfigError: No installed package has such a source, and there is no such file.
    """
    for point in points(GROUP):
        if point.name == name:
            source: Source = point.load()(folder / name)
            return source
    from imprint.sources.files import Files, looks_like_files

    if looks_like_files(name):
        return Files(folder / Files.name, name)
    raise ConfigError(
        f"source: no source is named {name!r}; installed: {', '.join(names())}. "
        "Fix the name, install the package that adds it, or give a path or a URL of files."
    )
