"""What base, mid and sft do around the loop: read, train, judge, write."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from imprint import artifacts, checkpoint, records, sources
from imprint.dataset.batch import Data
from imprint.dataset.chats import Chats, openings, passes
from imprint.errors import ConfigError
from imprint.model import Model
from imprint.recipe import SHAPELESS
from imprint.settings import Training, Tuning
from imprint.tokenizer import Rendered, Tokenizer
from imprint.training.distributed import Ranks, joined
from imprint.training.loop import evaluate, number_type, prepare, train

logger = logging.getLogger("imprint")

Values = TypeVar("Values", bound=BaseModel)


@dataclass(frozen=True)
class Prepared:
    """A model and what it is about to see."""

    model: Model
    data: Data
    judge: Callable[[Model, Ranks], dict[str, float]]
    """Measures the trained model; its figures go into the manifest."""
    about: dict[str, Any]
    """What the manifest should tell about the data."""


def checked(kind: type[Values], values: Mapping[str, Any], *, stage: str) -> Values:
    """Return ``values`` as ``kind``; keys that it does not know are left out.

    Raises:
        ConfigError: A value is missing or wrong.
    """
    known = {name: value for name, value in values.items() if name in kind.model_fields}
    try:
        return kind(**known)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join([stage, *map(str, fault["loc"])])
        raise ConfigError(f"{place}: {fault['msg']}. Fix it in the configuration.") from None


def shaping(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` without those that leave the weights as they are.

    Example:
        >>> shaping({"seed": 1, "training": {"batch_tokens": 64, "checkpoint_minutes": 3}})
        {'seed': 1, 'training': {'batch_tokens': 64}}
    """
    return {
        name: shaping(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in SHAPELESS
    }


def carry_out(
    build: Callable[[], Prepared],
    *,
    stage: str,
    version: int,
    training: Training,
    settings: Mapping[str, Any],
    tokenizer: Tokenizer,
    inputs: list[Path],
    out: Path,
    manifest: Path,
    metrics: Path,
) -> None:
    """Train what ``build`` returns and write checkpoint, manifest and metrics.

    Args:
        build: Reads the inputs and makes model and data.
        stage: Name of the stage.
        version: The stage's VERSION.
        training: The settings that the loop needs.
        settings: All that shapes the output, as plain types; holds ``seed``.
        tokenizer: That of the data.
        inputs: Files that shape the output.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line.
    """
    watch = artifacts.Stopwatch()
    shape = shaping(settings)
    seed = int(settings["seed"])
    with joined() as ranks:
        prepare(ranks)
        prepared = build()
        model = prepared.model.to(ranks.device)
        key = artifacts.digest([version, shape, [artifacts.sha256(path) for path in inputs]])
        states = checkpoint.States(out.parent / "state" / stage / key[:16])
        outcome = train(
            model,
            prepared.data,
            settings=training,
            ranks=ranks,
            label=stage,
            states=states,
            metrics=metrics,
        )
        figures = prepared.judge(model, ranks)
        if not ranks.first:
            return
        checkpoint.save(
            out,
            model,
            tokenizer=tokenizer.digest,
            settings=shape,
            seed=seed,
            step=outcome.steps,
            stage=stage,
        )
        artifacts.write_manifest(
            manifest,
            stage=stage,
            version=version,
            outputs=[out],
            inputs=inputs,
            settings=shape,
            seed=seed,
            watch=watch,
            device=device_name(ranks),
            parameters=model.n_parameters,
            flops_per_token=model.flops_per_token,
            number_type=str(number_type(ranks.device)).removeprefix("torch."),
            processes=ranks.world,
            steps=outcome.steps,
            tokens=outcome.tokens,
            tokens_per_s=outcome.tokens_per_s,
            training_seconds=round(outcome.seconds, 3),
            train_loss=outcome.lines[-1]["loss"] if outcome.lines else None,
            **prepared.about,
            **figures,
        )
        states.clear()


def tune(
    *,
    stage: str,
    version: int,
    from_end: bool,
    start: Path,
    tokenizer: Path,
    identity: Path | None,
    validation: Path | None,
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
    tuning = checked(Tuning, settings, stage=stage)
    seed = int(settings["seed"])
    speech = Tokenizer.load(tokenizer)

    def build() -> Prepared:
        model = checkpoint.load(start, tokenizer=speech.digest).model()
        rows: list[Rendered] = []
        if identity is not None and tuning.identity_epochs:
            given = list(records.conversations(identity))
            epochs = max(tuning.identity_epochs, tuning.identity_least / len(given))
            chosen = passes(len(given), epochs, seed=seed, from_end=from_end)
            told = speech.render_batch(given[number] for number in chosen)
            rows += openings(told, whole=tuning.whole_answers, seed=seed)
        about_identity = len(rows)
        chatter = tuning.chat_conversations
        if about_identity and tuning.chat_ratio:
            chatter = min(chatter, math.ceil(tuning.chat_ratio * about_identity))
        if chatter:
            source = sources.find(tuning.chat)
            own = int(artifacts.digest([stage, seed])[:8], 16)
            chats = source.conversations(count=chatter, seed=own)
            rows += speech.render_batch(chats)
        if not rows:
            raise ConfigError(
                f"{stage}: nothing to train on. Raise {stage}.chat_conversations, "
                f"or put {stage} into identity_stages."
            )
        context = model.config.context
        data = Chats(
            rows,
            tokenizer=speech,
            context=context,
            batch_tokens=tuning.batch_tokens,
            seed=seed,
        )

        def judge(trained: Model, ranks: Ranks) -> dict[str, float]:
            if validation is None:
                return {}
            held = Chats(
                speech.render_batch(records.conversations(validation)),
                tokenizer=speech,
                context=context,
                batch_tokens=tuning.batch_tokens,
                seed=seed,
            )
            return {"val_loss": round(evaluate(trained, held, ranks=ranks), 5)}

        about = {
            "identity_conversations": about_identity,
            "chat_conversations": len(rows) - about_identity,
            "cut": data.cut,
            "dropped": data.dropped,
        }
        return Prepared(model, data, judge, about)

    carry_out(
        build,
        stage=stage,
        version=version,
        training=tuning,
        settings=settings,
        tokenizer=speech,
        inputs=[path for path in (start, tokenizer, identity, validation) if path is not None],
        out=out,
        manifest=manifest,
        metrics=metrics,
    )


def device_name(ranks: Ranks) -> str:
    """Return what did the work: the GPU's name, or the CPU's threads."""
    import torch

    if ranks.device.type == "cuda":
        return torch.cuda.get_device_name(ranks.device)
    return f"cpu, {torch.get_num_threads()} threads"
