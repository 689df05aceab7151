"""Learn the tokenizer from the corpus, or take that of the model to start from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import artifacts
from imprint.corpus import Corpus
from imprint.tokenizer import Tokenizer

VERSION = 2


def run(*, corpus: Path | None, out: Path, manifest: Path, settings: Mapping[str, Any]) -> None:
    """Train a tokenizer on ``corpus`` and write it to ``out``.

    Args:
        corpus: Index of the corpus; None for an import.
        out: The tokenizer, in the format of the tokenizers library.
        manifest: What was made, from what.
        settings: ``vocabulary``, in tokens, special ones included, and ``characters`` to learn
            from, None for all; of an import alone ``from``, its folder.

    Raises:
        ConfigError: The vocabulary is too small to hold every byte.
        RecordError: A file of the corpus is damaged.
        ArtifactError: The import holds no tokenizer that fits.
    """
    watch = artifacts.Stopwatch()
    if corpus is None:
        from imprint import imports

        inputs, tokenizer = [], imports.tokenizer(Path(settings["from"]))
    else:
        inputs = [corpus]
        texts = Corpus.read(corpus).training(settings["characters"])
        tokenizer = Tokenizer.train(texts, vocabulary=settings["vocabulary"])
    tokenizer.save(out)
    artifacts.write_manifest(
        manifest,
        stage="tokenizer",
        version=VERSION,
        outputs=[out],
        inputs=inputs,
        settings=settings,
        seed=0,
        watch=watch,
        digest=tokenizer.digest,
        vocabulary=tokenizer.vocabulary,
    )
