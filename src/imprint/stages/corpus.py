"""Gather plain text for the tokenizer and for pretraining."""

from pathlib import Path

from imprint import artifacts, sources
from imprint.corpus import Corpus, File
from imprint.errors import ConfigError

VERSION = 2


def run(
    *,
    source: str,
    source_version: int,
    characters: int,
    seed: int,
    out: Path,
    manifest: Path,
) -> None:
    """Gather the files of ``source`` and write to ``out`` which they are.

    Text that a source makes goes beside ``out``, downloads go to results/downloads, and files of
    the user stay where they are.

    Args:
        source: A name listed by ``imprint sources``, or files; see ``sources.find``.
        source_version: The version of the source that the workflow asked for; goes into the
            manifest.
        characters: How much text to gather at least.
        seed: Seed of every choice.
        out: The index; read it with ``corpus.Corpus``.
        manifest: What was gathered.

    Raises:
        ConfigError: There is no such source, or it has no text beside what is held out.
        RecordError: A file of the source is damaged.
        StorageError: A file may not be written.
    """
    watch = artifacts.Stopwatch()
    paths = sources.find(source).gather(characters=characters, seed=seed, folder=out.parent)
    if not paths:
        raise ConfigError(f"corpus: source {source!r} has no text. Choose another source.")
    files = tuple(File(str(path), artifacts.sha256(path), path.stat().st_size) for path in paths)
    found = Corpus(files, characters, seed)
    if not any(map(str.strip, found.training())):
        raise ConfigError(
            f"corpus: source {source!r} has too few documents: the first with text is held out to "
            "judge by, and none is left to train on. Split a long one, or choose another source."
        )
    found.write(out)
    artifacts.write_manifest(
        manifest,
        stage="corpus",
        version=VERSION,
        outputs=[out, *paths],
        known={Path(file.path): file.sha256 for file in files},
        inputs=[],
        settings={"source": source, "source_version": source_version, "characters": characters},
        seed=seed,
        watch=watch,
    )
