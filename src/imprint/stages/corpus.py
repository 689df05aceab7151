"""Gather plain text for the tokenizer and for pretraining, and hold a little of it out."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from imprint import artifacts, sources
from imprint.dice import Dice
from imprint.errors import ConfigError
from imprint.progress import Progress

VERSION = 1

STEPS = 100
"""How finely progress is shown."""

SHARE = 0.01
"""Share of the documents that is held out."""

logger = logging.getLogger("imprint")


def run(
    *,
    source: str,
    source_version: int,
    characters: int,
    seed: int,
    out: Path,
    validation_out: Path,
    manifest: Path,
) -> None:
    """Write documents of ``source`` to ``out``, and about one in a hundred to ``validation_out``.

    Which side a document falls on depends on the seed and its text alone, so equal documents
    never stand in both; the first document is always held out, so neither file is empty.

    Args:
        source: A name listed by ``imprint sources``.
        source_version: The version of the source that the workflow asked for; goes into the
            manifest.
        characters: How much text to gather, both files together.
        seed: Seed of every choice.
        out: Lines of ``{"text": ...}``.
        validation_out: The held-out documents, in the same form.
        manifest: What was gathered.

    Raises:
        ConfigError: No source has that name, or it holds fewer than two different documents.
        StorageError: An output may not be written.
    """
    watch = artifacts.Stopwatch()
    texts = sources.find(source).documents(characters=characters, seed=seed)
    with artifacts.written(out) as kept, artifacts.written(validation_out) as held:
        counts = _divided(texts, characters, seed, kept, held)
        if not counts["documents"]:
            raise ConfigError(
                f"corpus: source {source!r} has no two different documents in {characters} "
                "characters. Raise corpus.characters, or choose another source."
            )
    artifacts.write_manifest(
        manifest,
        stage="corpus",
        version=VERSION,
        outputs=[out, validation_out],
        inputs=[],
        settings={"source": source, "source_version": source_version, "characters": characters},
        seed=seed,
        watch=watch,
        counts=counts,
    )
    logger.info(
        "%d documents, %d characters; %d documents held out",
        counts["documents"],
        counts["characters"],
        counts["validation_documents"],
    )


def _divided(
    texts: Iterator[str], characters: int, seed: int, kept: IO[str], held: IO[str]
) -> dict[str, int]:
    """Write each text to one of two files; return how much went where."""
    counts = dict.fromkeys(
        ("documents", "characters", "validation_documents", "validation_characters"), 0
    )
    first: str | None = None
    step = max(characters // STEPS, 1)
    with Progress("corpus", total=STEPS, unit="characters") as progress:
        for text in texts:
            first = text if first is None else first
            aside = text == first or Dice(seed, "validation", text).chance(SHARE)
            side = "validation_" if aside else ""
            counts[f"{side}documents"] += 1
            counts[f"{side}characters"] += len(text)
            line = json.dumps({"text": text}, ensure_ascii=False, separators=(",", ":"))
            (held if aside else kept).write(line + "\n")
            written = counts["characters"] + counts["validation_characters"]
            while progress.done < min(written // step, STEPS):
                progress.advance(amount=step)
    return counts
