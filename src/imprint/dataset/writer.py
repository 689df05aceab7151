"""Writes stores of token ids: piece by piece, so that a killed run goes on where it was."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imprint import artifacts
from imprint.dataset import store
from imprint.errors import ArtifactError
from imprint.progress import Progress
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer

FORMAT = 1
"""Raised when the same rows come out as other bytes."""
BLOCK = 4_000_000
"""Bytes of text tokenised at a time: enough for many cores, 0.2 GB of memory."""
STEPS = 1000
"""How finely progress is shown."""

Row = str | Conversation


@dataclass(frozen=True)
class Piece:
    """Rows that are tokenised together; a killed run goes on behind the last finished one."""

    key: str
    """Digest of all that decides about the rows: another key, and the piece is made anew."""
    rows: Iterable[tuple[str, Row]]
    """The part each row belongs to, and a text or a conversation; not read if it is not needed."""
    count: int
    """About how many rows there are, for progress."""


def write(index: Path, *, tokenizer: Tokenizer, pieces: Sequence[Piece]) -> None:
    """Tokenise ``pieces`` and write the store ``index``, on all cores.

    Args:
        index: The index; pieces go into the folder beside it.
        tokenizer: Turns rows into ids; a text begins with the bos token.
        pieces: All texts, or all conversations.

    Raises:
        StorageError: The disk is full, or the folder may not be written.
        RecordError: As reading the rows does.
    """
    folder = index.with_suffix("")
    index.unlink(missing_ok=True)
    for path in folder.glob("*") if folder.is_dir() else ():
        unfinished, old = path.name.startswith("."), path.name.partition(".")[0]
        if unfinished or not old.isdecimal() or int(old) >= len(pieces):
            path.unlink()
    label = f"tokens of {index.stem}"
    total, rows, fresh = max(1, sum(piece.count for piece in pieces)), 0, 0
    parts: dict[str, list[dict[str, Any]]] = {}
    with Progress(label, total=STEPS, unit="tokens", percent=True) as progress:
        for number, piece in enumerate(pieces):
            stem = folder / f"{number:05}"
            key = artifacts.digest([FORMAT, tokenizer.digest, piece.key])
            found = _finished(stem, key, tokenizer.vocabulary)
            if found is None:
                for path in [stem.with_suffix(".json"), *folder.glob(f"{stem.name}.*")]:
                    path.unlink(missing_ok=True)  # first what says that the piece is finished
                for done, tokens in _make(stem, piece, key, tokenizer):
                    fresh += tokens
                    while progress.done < min((rows + done) * STEPS // total, STEPS):
                        progress.advance(amount=fresh)
                        fresh = 0
                found = artifacts.read_json(stem.with_suffix(".json"))["parts"]
            else:
                progress.skip(min((rows + piece.count) * STEPS // total, STEPS))
            rows += piece.count
            for part, about in found.items():
                parts.setdefault(part, []).append(about)
    artifacts.write_json(
        index,
        {
            "format": FORMAT,
            "tokenizer": tokenizer.digest,
            "vocabulary": tokenizer.vocabulary,
            "parts": {
                part: {
                    **{name: sum(about[name] for about in abouts) for name in _Part.COUNTED},
                    "pieces": abouts,
                }
                for part, abouts in sorted(parts.items())
            },
        },
    )


def _make(stem: Path, piece: Piece, key: str, tokenizer: Tokenizer) -> Iterator[tuple[int, int]]:
    """Write ``piece`` to files named after ``stem``; yield rows so far and tokens of each block."""
    parts: dict[str, _Part] = {}
    rows = 0
    with contextlib.ExitStack() as opened:
        for block in _blocks(piece.rows):
            rendered = _rendered([row for _, row, _ in block], tokenizer)
            for name in dict.fromkeys(name for name, _, _ in block):
                if name not in parts:
                    spoken = rendered[0][1] is not None
                    parts[name] = _Part(stem, name, spoken, tokenizer.vocabulary, opened)
                inside = [place for place, row in enumerate(block) if row[0] == name]
                size = sum(block[place][2] for place in inside)
                parts[name].add([rendered[place] for place in inside], size)
            rows += len(block)
            yield rows, sum(len(ids) for ids, _ in rendered)
    about = {name: part.about() for name, part in sorted(parts.items())}
    artifacts.write_json(stem.with_suffix(".json"), {"key": key, "parts": about})


def _blocks(
    rows: Iterable[tuple[str, Row]],
) -> Iterator[list[tuple[str, Row, int]]]:
    """Yield rows in lists, each with its bytes of text."""
    block, total = [], 0
    for part, row in rows:
        texts = [row] if isinstance(row, str) else [turn["content"] for turn in row]
        size = sum(len(text.encode()) for text in texts)
        block.append((part, row, size))
        total += size
        if total >= BLOCK:
            yield block
            block, total = [], 0
    if block:
        yield block


def _rendered(rows: list[Row], tokenizer: Tokenizer) -> list[tuple[list[int], list[bool] | None]]:
    texts = [row for row in rows if isinstance(row, str)]
    if texts:
        assert len(texts) == len(rows), "a store holds texts or conversations"
        return [([tokenizer.bos, *ids], None) for ids in tokenizer.encode_batch(texts)]
    return [*tokenizer.render_batch(row for row in rows if not isinstance(row, str))]


class _Part:
    """The files of one part of a piece, while they are written."""

    COUNTED = ("documents", "tokens", "text_bytes")

    def __init__(
        self, stem: Path, name: str, spoken: bool, vocabulary: int, opened: contextlib.ExitStack
    ) -> None:
        self.types = store.types(vocabulary, spoken)
        self.paths = {kind: stem.parent / f"{stem.name}.{name}.{kind}" for kind in self.types}
        self.files = {
            kind: opened.enter_context(artifacts.written(path, "wb"))
            for kind, path in self.paths.items()
        }
        self.documents = self.tokens = self.text_bytes = 0

    def add(self, rows: list[tuple[list[int], list[bool] | None]], text_bytes: int) -> None:
        """Write ``rows``, made of so many bytes of text."""
        ends = self.tokens + np.cumsum([len(ids) for ids, _ in rows])
        count = int(ends[-1]) - self.tokens
        chain = itertools.chain.from_iterable
        numbers: dict[str, Iterable[Any]] = {
            "ids": chain(ids for ids, _ in rows),
            "spoken": chain(spoken or () for _, spoken in rows),
        }
        for kind, dtype in self.types.items():
            flat = ends if kind == "ends" else np.fromiter(numbers[kind], dtype, count)
            self.files[kind].write(flat.astype(dtype).tobytes())
        self.documents += len(rows)
        self.tokens += count
        self.text_bytes += text_bytes

    def about(self) -> dict[str, Any]:
        """Return what the index should tell."""
        return {
            **{name: getattr(self, name) for name in self.COUNTED},
            "files": {path.name: artifacts.sha256(path) for path in self.paths.values()},
        }


def _finished(stem: Path, key: str, vocabulary: int) -> dict[str, Any] | None:
    """Return what a piece made from ``key`` came to, None if it is not there or damaged."""
    with contextlib.suppress(ArtifactError, AttributeError, LookupError, TypeError):
        about = artifacts.read_json(stem.with_suffix(".json"))
        if about["key"] == key:
            for piece in about["parts"].values():
                store.files(stem.parent, piece, vocabulary)
            found: dict[str, Any] = about["parts"]
            return found
    return None
