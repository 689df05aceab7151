"""What every hand-over script shares: one log file, one way to fail."""

import atexit
import contextlib
import gc
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from imprint.errors import ImprintError

logger = logging.getLogger("imprint")


@contextlib.contextmanager
def reported(stream: io.TextIOBase | None = None) -> Iterator[None]:
    """Turn an ``ImprintError`` inside the block into one ``error:`` line and exit status 1.

    So is Ctrl-C, with status 130, which a shell gives to it.
    """
    try:
        yield
    except ImprintError as error:
        told, status = str(error), 1
    except KeyboardInterrupt:
        told, status = "interrupted. Run again to go on.", 128 + signal.SIGINT
    else:
        return
    print(f"error: {told}", file=stream or sys.stderr, flush=True)
    raise SystemExit(status)


def brisk() -> None:
    """Search seldom for cycles of what is no longer used, and not at the end; call it first.

    Nearly all that these programs make lives until their end. To import torch and leave takes 2.6
    instead of 3.6 s of a busy core, Snakemake 0.9 instead of 1.5 s, merging 6.8 instead of 7.8 s.
    """
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)  # what is frozen is not searched


def sharing() -> None:
    """Take no more of the machine than is needed; call it before torch is loaded.

    Threads that wait for each other give their core away. By default they spin for milliseconds, so
    that a training step on two cores takes 4 times as long as soon as anything else wants a core
    (measured: 5,000 tokens/s become 18,000). And oneDNN keeps kernels with their memory for fewer
    shapes than its 1024; a stage at the scale tiny meets some 400.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Send log records to stderr, where the caller redirects them, while the block runs."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@contextlib.contextmanager
def logged(path: str | Path) -> Iterator[TextIO]:
    """Write log records, printed text and warnings to ``path`` while the block runs.

    An ``ImprintError`` ends the script with status 1 and its message as the log's last line;
    any other exception is logged with its traceback and raised. What C code and child
    processes print goes to the log as well. The block gets the stream that stderr was before,
    for what is shown on a terminal meanwhile.
    """
    brisk()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", encoding="utf-8", buffering=1) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [os.dup(1), os.dup(2)]
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        handler = logging.StreamHandler(log)
        handler.setFormatter(formatter())
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with reported(log), os.fdopen(os.dup(saved[1]), "w", encoding="utf-8") as terminal:
                yield terminal
        except Exception:
            logger.exception("This is a fault in imprint, not in your input.")
            raise
        finally:
            root.removeHandler(handler)
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def formatter() -> logging.Formatter:
    """Return the format of a log line: UTC time and message."""
    shape = logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S")
    shape.converter = time.gmtime
    return shape
