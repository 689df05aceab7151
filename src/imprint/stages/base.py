"""Pretrain a model on the corpus, or import one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import ability, artifacts, checkpoint, dial, imports, records
from imprint.dataset.documents import Documents
from imprint.dataset.store import Store
from imprint.errors import ArtifactError, ConfigError
from imprint.model import Model
from imprint.scale import Architecture, Base
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks, joined
from imprint.training.stage import Prepared, carry_out, checked, shaping

VERSION = 2

logger = logging.getLogger("imprint")

CROPPED = 0.5
"""Share of the text above which the user is told that rows cut it off. Of web text, rows of 2,048
tokens cut off up to a third, which needs no mending."""
BEGINNINGS = ("The capital of France is", "Once upon a time", "If a train leaves at noon")
"""What the model in training is asked to go on with, now and then."""


def run(
    *,
    corpus: Path | None,
    tokenizer: Path,
    out: Path,
    manifest: Path,
    metrics: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train a new model on ``corpus`` and write it to ``out``; or import the one that is named.

    Args:
        corpus: Index of the corpus as tokens; None for an import.
        tokenizer: The one that cut it, or that of the import.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line; none for an import.
        settings: ``model`` (scale.Architecture; none for an import), ``training`` (scale.Base)
            and ``seed``.

    Raises:
        ConfigError: A setting is missing or wrong.
        ArtifactError: The tokens are damaged or lack a part, or the import is not what it should
            be.
        RecordError: There is no text.
    """
    base = checked(Base, settings["training"], stage="base")
    speech = Tokenizer.load(tokenizer)
    if corpus is None:
        _import(base, speech, tokenizer, out, manifest, metrics, settings)
        return
    shape = checked(Architecture, settings["model"], stage="model")

    def build() -> Prepared:
        config = dial.shape(shape, vocabulary=speech.vocabulary)
        told, held = (
            Store.open(corpus, part, tokenizer=speech.digest) for part in ("train", "validation")
        )
        if held.tokens < 2:
            raise ArtifactError(
                f"{corpus}: holds no text to judge the model by. "
                f"Delete it and {corpus.with_suffix('')}, and run again."
            )
        data = Documents(
            told,
            context=shape.context,
            batch_tokens=base.step_tokens,
            tokens=base.tokens,
            seed=int(settings["seed"]),
        )
        _tell(data)

        def judge(model: Model, ranks: Ranks) -> dict[str, float]:
            return ability.text(model, held, ranks=ranks)

        return Prepared(Model(config, seed=int(settings["seed"])), data, judge, data.about)

    carry_out(
        build,
        stage="base",
        version=VERSION,
        training=base,
        settings=settings,
        tokenizer=speech,
        samples=[[speech.bos, *speech.encode(text)] for text in BEGINNINGS],
        inputs=[corpus, tokenizer],
        out=out,
        manifest=manifest,
        metrics=metrics,
    )


def _tell(data: Documents) -> None:
    """Log how often the text is seen, if more than once, and if rows cut off much of it."""
    whole, fitting = data.store.tokens, data.fitting
    if data.passes > 1:
        logger.info(
            "base: the corpus has %s tokens, %s of them in reach of rows: "
            "to train on %s, it is seen about %.1f times",
            *(f"{whole:,}", f"{fitting:,}", f"{data.rows * data.length:,}", data.passes),
        )
    if (lost := 1 - fitting / whole) > CROPPED:
        logger.warning(
            "base: %.0f %% of the text is never seen: a document is cropped to %d tokens, a row. "
            "Split long documents, or raise model.context.",
            *(100 * lost, data.length + 1),
        )


def _import(
    base: Base,
    speech: Tokenizer,
    tokenizer: Path,
    out: Path,
    manifest: Path,
    metrics: Path,
    settings: Mapping[str, Any],
) -> None:
    watch = artifacts.Stopwatch()
    if base.start is None:
        raise ConfigError("base: there is no corpus to train on, and no base.from. Name a folder.")
    with joined() as ranks:
        if not ranks.first:
            return
    found = imports.load(Path(base.start))
    if imports.tokenizer(Path(base.start)).digest != speech.digest:
        raise ArtifactError(
            f"{tokenizer}: is not the tokenizer of {base.start}. Delete it and run again."
        )
    model = Model(found.config, seed=None)
    model.load_state_dict(found.weights)
    plain = shaping(settings)
    checkpoint.save(
        out,
        model,
        tokenizer=speech.digest,
        settings=plain,
        seed=int(settings["seed"]),
        step=0,
        stage="base",
    )
    records.write_lines(metrics, [])
    artifacts.write_manifest(
        manifest,
        stage="base",
        version=VERSION,
        outputs=[out],
        inputs=[*found.files, tokenizer],
        settings=plain,
        seed=int(settings["seed"]),
        watch=watch,
        source=found.source,
        parameters=found.config.n_parameters,
        flops_per_token=found.config.flops_per_token,
        steps=0,
    )
