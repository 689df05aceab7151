"""Token ids on disk: written once (see writer.py), read by every process straight from the file.

A store is an index, such as ``tokens/base.json``, and pieces in a folder of its name. Each piece
holds, for each part of the data (train, validation), the documents end to end:

    00000.train.ids     token ids: uint16, or uint32 for more than 65,536 of vocabulary
    00000.train.ends    where each document ends, in tokens: int64
    00000.train.spoken  of conversations: 1 for a token that the model is trained to say: uint8
    00000.json          what the piece was made from, and what came out; written last

All numbers are little endian.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imprint import artifacts
from imprint.dataset.order import Numbers
from imprint.errors import ArtifactError
from imprint.tokenizer import Rendered

ENDS, SPOKEN = np.dtype("<i8"), np.dtype("u1")


def types(vocabulary: int, spoken: bool) -> dict[str, np.dtype[Any]]:
    """Return the number type of each kind of file."""
    known = {"ids": np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4"), "ends": ENDS}
    return {**known, "spoken": SPOKEN} if spoken else known


def files(folder: Path, piece: dict[str, Any], vocabulary: int) -> dict[str, NDArray[Any]]:
    """Return the arrays of a piece, left on disk.

    Raises:
        ArtifactError: A file is missing or not as long as it should be.
    """
    known = types(vocabulary, spoken=True)
    arrays = {}
    for name in piece["files"]:
        path, kind = folder / name, name.rpartition(".")[2]
        count = piece["documents" if kind == "ends" else "tokens"]
        expected, size = count * known[kind].itemsize, path.stat().st_size if path.exists() else 0
        if size != expected:
            raise ArtifactError(
                f"{path}: should have {expected} bytes, has {size}. "
                f"Delete {folder.with_suffix('.json')} and run again: the rest is kept."
            )
        arrays[kind] = np.asarray(np.memmap(path, dtype=known[kind], mode="r"))
    return arrays


class Tape:
    """Arrays of several files, read as if they lay end to end."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = arrays
        self.offsets = np.cumsum([0, *map(len, arrays)])

    def read(self, starts: Numbers, lengths: Numbers) -> Numbers:
        """Return a copy of what lies in the stretches from ``starts`` on, end to end."""
        which = np.searchsorted(self.offsets, starts, side="right") - 1
        begins = starts - self.offsets[which]
        spans = zip(which.tolist(), begins.tolist(), (begins + lengths).tolist(), strict=True)
        return np.concatenate(
            [self.arrays[array][begin:end] for array, begin, end in spans], dtype=np.int64
        )


class Store:
    """Documents or conversations as token ids; `len` counts them."""

    def __init__(
        self,
        ids: Sequence[NDArray[Any]],
        ends: Sequence[NDArray[Any]],
        spoken: Sequence[NDArray[Any]],
        *,
        text_bytes: int,
    ) -> None:
        """Hold the arrays of each piece; ``spoken`` is empty if they are not conversations."""
        self.ids, self.spoken = Tape(ids), Tape(spoken)
        nothing = np.zeros(0, dtype=np.int64)
        self.lengths: Numbers = np.concatenate([nothing, *(np.diff(e, prepend=0) for e in ends)])
        """Of each document, in tokens."""
        self.starts: Numbers = np.cumsum(self.lengths) - self.lengths
        """Of each document on the tapes."""
        self.tokens = int(self.lengths.sum())
        self.text_bytes = text_bytes
        """Of all texts, in UTF-8."""

    def __len__(self) -> int:
        return len(self.lengths)

    @classmethod
    def open(cls, index: Path, part: str, *, tokenizer: str) -> "Store":
        """Return ``part`` of the store ``index``; its tokens stay on disk.

        Args:
            index: As given to `write`.
            part: Such as train; one that no row belongs to is empty.
            tokenizer: Digest of the tokenizer that the model speaks.

        Raises:
            ArtifactError: The index or a piece is missing or damaged, or another tokenizer made it.
        """
        about = artifacts.read_json(index)
        try:
            if about["tokenizer"] != tokenizer:
                raise ArtifactError(
                    f"{index}: made with the tokenizer {about['tokenizer'][:12]}, but the model "
                    f"has {tokenizer[:12]}. Delete {index} and run again."
                )
            given = about["parts"].get(part, {"pieces": [], "text_bytes": 0})
            folder = index.with_suffix("")
            pieces = [files(folder, piece, about["vocabulary"]) for piece in given["pieces"]]
            return cls(
                [piece["ids"] for piece in pieces],
                [piece["ends"] for piece in pieces],
                [piece["spoken"] for piece in pieces if "spoken" in piece],
                text_bytes=given["text_bytes"],
            )
        except (AttributeError, LookupError, TypeError) as error:
            raise ArtifactError(
                f"{index}: not an index of tokens ({error!r}). Delete it and run again."
            ) from error

    @classmethod
    def of(cls, rendered: Sequence[Rendered]) -> "Store":
        """Return a store of a few conversations, held in memory."""
        ends = np.cumsum([len(ids) for ids, _ in rendered], dtype=np.int64)
        chain, total = itertools.chain.from_iterable, int(ends[-1]) if len(ends) else 0
        ids = np.fromiter(chain(ids for ids, _ in rendered), np.int64, total)
        spoken = np.fromiter(chain(spoken for _, spoken in rendered), SPOKEN, total)
        return cls([ids], [ends], [spoken], text_bytes=0)
