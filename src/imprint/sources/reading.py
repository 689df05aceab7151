"""Documents and chats in files: JSONL, plain or packed by gzip, and parquet, piece by piece."""

import contextlib
import gzip
import itertools
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json  # four times as fast as json

from imprint import records
from imprint.errors import RecordError
from imprint.records import Conversation

if TYPE_CHECKING:
    import numpy as np
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
"""What a file of text or chat may be."""

LONGEST_LINE = 1 << 26
"""Bytes that a line of JSONL may have: 64 MiB, thirty long novels. More is a file gone wrong."""

_ROWS = 1024
"""Rows of a parquet file that are in memory at once, beside the row group they come from."""

_BOM = b"\xef\xbb\xbf"

logger = logging.getLogger("imprint")


def texts(path: Path) -> Iterator[str]:
    """Yield the documents of a file: ``{"text": ...}`` lines, or the column ``text`` of parquet.

    Raises:
        RecordError: The file is missing, damaged, not UTF-8 or holds no text where it should.
    """
    if path.suffix == ".parquet":
        for column in _columns(path):
            yield from column.to_pylist()
        return
    for number, line in _lines(path):
        value = _parsed(line, path, number)
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise RecordError(f"{path}:{number}: should be an object with a text")
        yield value["text"]


def characters(path: Path) -> int:
    """Return how long the documents of a file are in all, having checked each.

    Raises:
        RecordError: As for `texts`.
    """
    if path.suffix != ".parquet":
        return sum(map(len, texts(path)))
    import pyarrow.compute as pc

    return sum(pc.sum(pc.utf8_length(column)).as_py() for column in _columns(path) if len(column))


def rows(path: Path, *, columns: Sequence[str]) -> int:
    """Return how many rows a parquet file has, or how many lines a JSONL file.

    Args:
        path: The file.
        columns: What a parquet file has to have.

    Raises:
        RecordError: The file is missing or damaged, or lacks a column.
    """
    if path.suffix == ".parquet":
        with _parquet(path, columns) as file:
            count = int(file.metadata.num_rows)
    else:
        count = sum(1 for _ in _lines(path))
    if not count:
        logger.warning("%s: is empty", path)
    return count


def choose(
    paths: Sequence[Path],
    *,
    name: str,
    columns: Sequence[str],
    turns: Callable[[Any], object],
    count: int,
    seed: int,
) -> Iterator[Conversation]:
    """Yield conversations from files: a seeded choice, none twice before all were seen once.

    The choice for a larger count holds the one for a smaller. Conversations come in the order of
    the files, so that a row group at a time is in memory. Rows that are no conversation are
    skipped, counted, and replaced by others.

    Args:
        paths: The files.
        name: Of the source, for messages.
        columns: What is read of a row of parquet.
        turns: Turns a row (a mapping, or the value of a JSONL line) into messages.
        count: How many to yield.
        seed: Of the choice.

    Raises:
        RecordError: A file is missing or damaged, or no row is a conversation.
    """
    import numpy as np

    from imprint.dataset.order import randomness

    sizes = [rows(path, columns=columns) for path in paths]
    total, done, skipped, first = sum(sizes), 0, 0, "the files are empty"
    for again in itertools.count():
        order = randomness("chat", seed, again).permutation(total)
        place, before = 0, done
        while done < count and place < total:
            chosen = np.sort(order[place : place + count - done])
            place += len(chosen)
            for where, row in _chosen(paths, sizes, chosen, columns):
                try:
                    conversation = records.check(turns(row), where)
                except RecordError as error:
                    first = str(error) if not skipped else first
                    skipped += not again
                    continue
                done += 1
                yield conversation
        if done >= count:
            break
        if done == before:
            raise RecordError(f"{name}: none of {total} rows is a conversation; {first}")
        if not again:
            logger.warning("%s: %d conversations, which come %.1f times", name, done, count / done)
    if skipped:
        logger.warning("%s: %d rows are no conversation; %s", name, skipped, first)


def _chosen(
    paths: Sequence[Path], sizes: Sequence[int], chosen: "np.ndarray[Any, Any]", columns: Any
) -> Iterator[tuple[str, Any]]:
    """Yield the rows with the given numbers, ascending over all files, and where each is."""
    start = 0
    for path, size in zip(paths, sizes, strict=True):
        inside = chosen[(chosen >= start) & (chosen < start + size)] - start
        start += size
        if not len(inside):
            continue
        if path.suffix == ".parquet":
            yield from _parquet_rows(path, inside, columns)
            continue
        wanted = set(inside.tolist())
        for row, (number, line) in enumerate(_lines(path)):
            if row in wanted:
                yield f"{path}:{number}", _parsed(line, path, number)


def _parquet_rows(
    path: Path, chosen: "np.ndarray[Any, Any]", columns: Sequence[str]
) -> Iterator[tuple[str, Any]]:
    with _parquet(path, columns) as file:
        start = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            inside = chosen[(chosen >= start) & (chosen < stop)]
            if len(inside):
                table = file.read_row_group(group, columns=list(columns)).take(inside - start)
                for number, row in zip(inside, table.to_pylist(), strict=True):
                    yield f"{path}: row {number + 1}", row
            start = stop


@contextlib.contextmanager
def _parquet(path: Path, columns: Sequence[str]) -> Iterator["ParquetFile"]:
    """Open a parquet file that should have ``columns``; say in the user's words what is wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if lacking := [column for column in columns if column not in names]:
                raise RecordError(
                    f"{path}: has no column {lacking[0]!r}, only {', '.join(names)}. "
                    "Rename the column, or choose other files."
                )
            yield file
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file. Check the path.") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0]
        raise RecordError(
            f"{path}: a broken parquet file ({reason}). Delete it and run again if it was "
            "downloaded; put a whole copy in its place if it is yours."
        ) from None


def _columns(path: Path) -> Iterator["Array"]:
    """Yield the texts of a parquet file in pieces, checked."""
    import pyarrow as pa

    with _parquet(path, ["text"]) as file:
        kind = file.schema_arrow.field("text").type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise RecordError(f"{path}: the column 'text' holds {kind}. It should hold strings.")
        start = 0
        for batch in file.iter_batches(batch_size=_ROWS, columns=["text"]):
            column = batch.column(0)
            column.validate(full=True)  # that it is UTF-8
            if column.null_count:
                row = start + column.is_null().index(True).as_py() + 1
                raise RecordError(f"{path}: row {row}: no text. Leave such rows out.")
            start += len(column)
            yield column


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each line of a JSONL file that is not blank, and its bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(LONGEST_LINE + 1)
                if len(line) > LONGEST_LINE:
                    size = len(line)
                    while not line.endswith(b"\n") and (line := file.readline(1 << 20)):
                        size += len(line)
                    raise RecordError(
                        f"{path}:{number}: a line of {size / 1e6:,.0f} MB; at most "
                        f"{LONGEST_LINE / 1e6:,.0f} MB can be read. Split the document."
                    )
                if not line:
                    return
                line = line.removeprefix(_BOM) if number == 1 else line
                if not line.isspace():
                    yield number, line
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file. Check the path.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RecordError(
            f"{path}: a broken gzip file ({error}). Delete it and run again if it was downloaded; "
            "put a whole copy in its place if it is yours."
        ) from None


def _parsed(line: bytes, path: Path, number: int) -> Any:
    try:
        return from_json(line)
    except ValueError as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            raise RecordError(
                f"{path}:{number}: byte {wrong.start + 1} of the line is not UTF-8. "
                "Save the file as UTF-8."
            ) from None
        raise RecordError(f"{path}:{number}: not a JSON value ({error})") from None
