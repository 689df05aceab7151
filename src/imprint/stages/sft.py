"""Train the model on conversations once more, down to the lowest rates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import training

VERSION = 1


def run(
    *,
    start: Path,
    tokenizer: Path,
    identity: Path | None,
    validation: Path | None,
    out: Path,
    manifest: Path,
    metrics: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train ``start`` on the identity and on general chat, and write it to ``out``.

    Of a fraction of a pass over the identity, this stage takes the rows from the end of a
    seeded order, so that half a pass in mid and half a pass in sft are every row once.

    Args:
        start: The checkpoint to train.
        tokenizer: The one that ``start`` was trained with.
        identity: Conversations that teach the identity; None to leave it out.
        validation: Conversations held back, for ``val_loss``; None to leave it out.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line.
        settings: ``settings.Tuning`` as plain types, and ``seed``.

    Raises:
        ConfigError: A setting is wrong, or there is nothing to train on.
        ArtifactError: ``start`` is damaged or goes with another tokenizer.
    """
    training.tune(
        stage="sft",
        version=VERSION,
        from_end=True,
        start=start,
        tokenizer=tokenizer,
        identity=identity,
        validation=validation,
        out=out,
        manifest=manifest,
        metrics=metrics,
        settings=settings,
    )
