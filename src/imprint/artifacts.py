"""Files that are complete or absent, and the manifests that describe them."""

import contextlib
import errno
import hashlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from imprint import __version__
from imprint.errors import ArtifactError, StorageError

LIBRARIES = ("torch", "tokenizers", "numpy", "pydantic", "snakemake")
"""Libraries whose version a manifest records."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(value: object) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces: equal values, equal text."""
    return _ENCODER.encode(value)


def digest(value: object) -> str:
    """Return the sha256 of the canonical JSON of ``value``, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the sha256 of the bytes of ``path``, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def written(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only once the block has ended well.

    The bytes go to a hidden neighbour, reach the disk, and are renamed: a killed job leaves
    no half-written file.

    Raises:
        StorageError: The disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with temporary.open(mode, **text) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def storage_error(path: Path, error: OSError) -> Exception:
    """Say in the user's words why ``path`` was not written; other errors come back as they are."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"{path}: the disk is full; nothing was half-written. Free some space and run again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"{path}: may not be written ({os.strerror(error.errno)}). "
            "Make the folder writable, or work in a copy that is."
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return StorageError(f"{path}: a file stands where a folder should be. Move it away.")
    if error.errno in (errno.EFBIG, errno.EIO):
        return StorageError(
            f"{path}: could not be written ({os.strerror(error.errno)}); nothing was half-written. "
            "Lift the limit (`ulimit -f`), or try another disk, and run again."
        )
    return error


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as indented JSON, complete or not at all."""
    with written(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in ``path``.

    Raises:
        ArtifactError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Run `make identity` to build it.") from error
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON ({error}). Delete it and run again.") from error


def library_versions() -> dict[str, str]:
    """Return the installed version of each library that shapes artifacts."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


class Stopwatch:
    """Wall time of a stage in seconds, for its manifest."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the stopwatch was made, rounded to milliseconds."""
        return round(time.monotonic() - self.started, 3)


def write_manifest(
    path: Path,
    *,
    stage: str,
    version: int | str,
    outputs: list[Path],
    inputs: list[Path],
    settings: Mapping[str, Any],
    seed: int,
    watch: Stopwatch,
    device: str = "cpu",
    cost_usd: float = 0.0,
    known: Mapping[Path, str] | None = None,
    **more: Any,
) -> None:
    """Write the manifest of a stage: what was made, from what, how, and what it cost.

    Args:
        path: The manifest.
        stage: Name of the stage.
        version: The stage's VERSION, or the digest of its code.
        outputs: Files the stage made; their sha256 is recorded under their name.
        inputs: Files it read; their sha256 is recorded under their name.
        settings: The settings that shaped the outputs, as plain types.
        seed: Seed of every random choice in the stage.
        watch: Started when the stage began.
        device: Name of the device that did the work.
        cost_usd: Money spent, in US dollars.
        known: sha256 of outputs for which it has been computed already.
        more: Whatever else the stage wants to tell; goes in as it is.
    """
    manifest: dict[str, Any] = {
        "stage": stage,
        "version": version,
        "outputs": {str(path): (known or {}).get(path) or sha256(path) for path in outputs},
        "inputs": {str(given): sha256(given) for given in inputs},
        "settings": dict(settings),
        "seed": seed,
        **more,
        "imprint": __version__,
        "python": platform.python_version(),
        "libraries": library_versions(),
        "device": device,
        "seconds": watch.seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cost_usd": cost_usd,
    }
    write_json(path, manifest)
