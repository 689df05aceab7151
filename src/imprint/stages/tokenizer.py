"""Learn the tokenizer from the corpus."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import artifacts, records
from imprint.tokenizer import Tokenizer

VERSION = 1


def run(*, corpus: Path, out: Path, manifest: Path, settings: Mapping[str, Any]) -> None:
    """Train a tokenizer on ``corpus`` and write it to ``out``.

    Args:
        corpus: Lines of ``{"text": ...}``.
        out: The tokenizer, in the format of the tokenizers library.
        manifest: What was made, from what.
        settings: ``vocabulary``, in tokens, special ones included.

    Raises:
        ConfigError: The vocabulary is too small to hold every byte.
        RecordError: A line of the corpus holds no text.
    """
    watch = artifacts.Stopwatch()
    tokenizer = Tokenizer.train(records.texts(corpus), vocabulary=settings["vocabulary"])
    tokenizer.save(out)
    artifacts.write_manifest(
        manifest,
        stage="tokenizer",
        version=VERSION,
        outputs=[out],
        inputs=[corpus],
        settings=settings,
        seed=0,
        watch=watch,
        digest=tokenizer.digest,
        vocabulary=tokenizer.vocabulary,
    )
