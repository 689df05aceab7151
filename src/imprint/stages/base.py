"""Pretrain a model on the corpus."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import records
from imprint.dataset.documents import Documents
from imprint.model import Model, ModelConfig
from imprint.settings import Architecture, Base
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.loop import evaluate
from imprint.training.stage import Prepared, carry_out, checked

VERSION = 1

JUDGED_TOKENS = 1_000_000
"""Most tokens that the validation loss is measured on."""


def run(
    *,
    corpus: Path,
    tokenizer: Path,
    validation: Path | None,
    out: Path,
    manifest: Path,
    metrics: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train a new model on ``corpus`` and write it to ``out``.

    Args:
        corpus: Lines of ``{"text": ...}``.
        tokenizer: Learned from the same corpus.
        validation: Lines of text held back, for ``val_bpb`` (bits a byte); None to leave it out.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line.
        settings: ``model`` (settings.Architecture), ``training`` (settings.Base) and ``seed``.

    Raises:
        ConfigError: A setting is missing or wrong.
        RecordError: A line of the corpus holds no text.
    """
    shape = checked(Architecture, settings["model"], stage="model")
    base = checked(Base, settings["training"], stage="base")
    seed = int(settings["seed"])
    speech = Tokenizer.load(tokenizer)

    def documents(path: Path, tokens: int | None) -> Documents:
        return Documents(
            records.texts(path),
            tokenizer=speech,
            context=shape.context,
            batch_tokens=base.batch_tokens,
            tokens=tokens,
            seed=seed,
        )

    def build() -> Prepared:
        config = ModelConfig(
            depth=shape.depth,
            vocabulary=speech.vocabulary,
            context=shape.context,
            head_width=shape.head_width,
        )
        data = documents(corpus, base.tokens)

        def judge(model: Model, ranks: Ranks) -> dict[str, float]:
            if validation is None:
                return {}
            held = documents(validation, None)
            held.steps = min(held.steps, max(1, JUDGED_TOKENS // base.batch_tokens))
            nats = evaluate(model, held, ranks=ranks)
            return {
                "val_loss": round(nats, 5),
                "val_bpb": round(nats / math.log(2) / held.bytes_per_token, 5),
            }

        about = {"corpus_tokens": len(data.flat), "passes": round(base.tokens / len(data.flat), 3)}
        return Prepared(Model(config, seed=seed), data, judge, about)

    carry_out(
        build,
        stage="base",
        version=VERSION,
        training=base,
        settings=settings,
        tokenizer=speech,
        inputs=[path for path in (corpus, tokenizer, validation) if path is not None],
        out=out,
        manifest=manifest,
        metrics=metrics,
    )
