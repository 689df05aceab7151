"""Training on conversations: the stages mid and sft."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imprint import ability, checkpoint
from imprint.dataset.chats import Chats
from imprint.dataset.mixture import Share, familiar, openings, passes
from imprint.dataset.packed import Packed
from imprint.dataset.store import Store
from imprint.errors import ConfigError
from imprint.model import Model
from imprint.scale import Tuning
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.stage import Prepared, carry_out, checked

QUESTIONS = ("Who are you?", "Who made you?", "What is the capital of France?")
"""What a model in training is asked now and then."""


def tune(
    *,
    stage: str,
    version: int,
    from_end: bool,
    start: Path,
    tokenizer: Path,
    identity: Path | None,
    chat: Path | None,
    out: Path,
    manifest: Path,
    metrics: Path,
    settings: Mapping[str, Any],
) -> None:
    """Train the checkpoint ``start`` on the identity and on general chat; see mid and sft.

    Args:
        stage: Name of the stage.
        version: The stage's VERSION.
        from_end: Whether a fraction of a pass takes the last rows of the seeded order.
        start: The checkpoint to train.
        tokenizer: The one that ``start`` was trained with.
        identity: Index of the identity as tokens; None to leave it out.
        chat: Index of general chat as tokens; None to leave it out.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line.
        settings: ``scale.Tuning`` as plain types, and ``seed``.

    Raises:
        ConfigError: A setting is wrong, or there is nothing to train on.
        ArtifactError: ``start`` is damaged or goes with another tokenizer.
    """
    tuning = checked(Tuning, settings, stage=stage)
    seed = int(settings["seed"])
    speech = Tokenizer.load(tokenizer)

    def build() -> Prepared:
        model = checkpoint.load(start, tokenizer=speech.digest).model()
        arranged: type[Packed] | type[Chats] = Packed if tuning.packed else Chats
        shares = []
        if identity is not None and tuning.identity_epochs:
            told = Store.open(identity, "train", tokenizer=speech.digest)
            epochs = max(tuning.identity_epochs, tuning.identity_least / len(told))
            rows = passes(len(told), epochs, seed=seed, from_end=from_end)
            early = openings(len(rows), whole=tuning.whole_answers, seed=seed)
            shares.append(Share(told, rows, early))
        about_identity = sum(len(share.rows) for share in shares)
        if chat is not None:
            general = Store.open(chat, "train", tokenizer=speech.digest)
            part = mixed(len(general), about_identity, tuning) / max(1, len(general))
            rows = passes(len(general), part, seed=seed, from_end=False)
            early = openings(len(rows), whole=tuning.whole_answers, seed=seed)
            if early.any():
                early &= familiar(general, rows)
            shares.append(Share(general, rows, early))
        total = sum(len(share.rows) for share in shares)
        if not total:
            raise ConfigError(
                f"{stage}: nothing to train on. Name a source in {stage}.chat, "
                f"or put {stage} into identity_stages."
            )
        data = arranged(
            shares,
            tokenizer=speech,
            context=model.config.context,
            batch_tokens=tuning.step_tokens,
            seed=seed,
            joined=tuning.joined,
        )

        def judge(trained: Model, ranks: Ranks) -> dict[str, float]:
            if identity is None:
                return {}
            held = Store.open(identity, "validation", tokenizer=speech.digest)
            loss = ability.chat(trained, held, tokenizer=speech, ranks=ranks)
            return {} if loss is None else {"val_loss": loss}

        about = {
            "identity_conversations": about_identity,
            "chat_conversations": total - about_identity,
            "cut": data.mixture.cut,
            "dropped": data.mixture.dropped,
        }
        return Prepared(model, data, judge, lambda: about)

    carry_out(
        build,
        stage=stage,
        version=version,
        training=tuning,
        settings=settings,
        tokenizer=speech,
        samples=[speech.prompt([{"role": "user", "content": text}]) for text in QUESTIONS],
        inputs=[path for path in (start, tokenizer, identity, chat) if path is not None],
        out=out,
        manifest=manifest,
        metrics=metrics,
    )


def mixed(chats: int, about_identity: int, tuning: Tuning) -> int:
    """Return how many of ``chats`` are mixed in, so that the identity keeps its share.

    Example:
        >>> mixed(1000, 120, Tuning(identity_share=0.6)), mixed(1000, 0, Tuning())
        (80, 1000)
    """
    share = tuning.identity_share
    if share is None or not about_identity:
        return chats
    return min(chats, math.ceil(round(about_identity * (1 - share) / share, 6)))
