"""What base, mid and sft do around the loop: forecast, train, judge, write."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from imprint import artifacts, checkpoint, hardware
from imprint.dataset.batch import Data, Even
from imprint.decoding import Batch, Request
from imprint.dice import Dice
from imprint.errors import ConfigError
from imprint.model import Model
from imprint.recipe import SHAPELESS
from imprint.scale import Training
from imprint.settings import Watch
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks, joined
from imprint.training.loop import number_type, prepare, train
from imprint.training.samples import Sampler
from imprint.training.states import States

logger = logging.getLogger("imprint")

UTILISATION = 0.4
"""Share of a GPU's peak that a forecast counts on."""
SAMPLE_TOKENS = 40
"""Longest text of a sample."""

Values = TypeVar("Values", bound=BaseModel)


@dataclass(frozen=True)
class Prepared:
    """A model and what it is about to see."""

    model: Model
    data: Data
    judge: Callable[[Model, Ranks], Mapping[str, Any]]
    """Measures the trained model; its figures go into the manifest."""
    about: Callable[[], dict[str, Any]]
    """What the manifest should tell about the data, asked after training."""


def checked(kind: type[Values], values: Mapping[str, Any], *, stage: str) -> Values:
    """Return ``values`` as ``kind``; keys that it does not know are left out.

    Raises:
        ConfigError: A value is missing or wrong.
    """
    names = {field.alias or name for name, field in kind.model_fields.items()}
    known = {name: value for name, value in values.items() if name in names}
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
    samples: list[list[int]],
    inputs: list[Path],
    out: Path,
    manifest: Path,
    metrics: Path,
) -> None:
    """Train what ``build`` returns and write checkpoint, manifest and metrics.

    Args:
        build: Opens the inputs and makes model and data.
        stage: Name of the stage.
        version: The stage's VERSION.
        training: The settings that the loop needs.
        settings: All that the stage was told, as plain types; holds ``seed``.
        tokenizer: That of the data.
        samples: Token ids that the model in training is asked to go on from, now and then.
        inputs: Files that shape the output.
        out: The checkpoint.
        manifest: What was made, from what.
        metrics: One JSON object a line.
    """
    watch = artifacts.Stopwatch()
    shape = shaping(settings)
    seed = int(settings["seed"])
    usd = float(settings.get("gpu_usd_per_hour", 0.0))
    with joined() as ranks:
        prepare(ranks, precision=training.precision)
        prepared = build()
        model = prepared.model.to(ranks.device)
        price = hardware.usd_per_hour(ranks.world if ranks.device.type == "cuda" else 0, usd)
        taken = step_tokens(prepared.data, training.step_tokens, ranks, stage=stage)
        foreseen = forecast(model, prepared.data.steps * taken, ranks, usd=price)
        if ranks.first and foreseen:
            logger.info("%s: about %.0f s, $%.2f", stage, *foreseen.values())
        key = artifacts.digest([version, shape, [artifacts.sha256(path) for path in inputs]])
        states = States(out.parent / "state" / stage / key[:16])
        outcome = train(
            model,
            prepared.data,
            settings=training,
            ranks=ranks,
            label=stage,
            states=states,
            metrics=metrics,
            watch=Watch(**settings.get("watch", {})),
            sampler=sampler(tokenizer, samples),
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
            device=ranks.device_name,
            cost_usd=round((watch.seconds + outcome.earlier) / 3600 * price, 4),
            forecast=foreseen,
            parameters=model.config.n_parameters,
            flops_per_token=model.config.flops_per_token,
            number_type=str(number_type(ranks.device, training.precision)).removeprefix("torch."),
            processes=ranks.world,
            steps=outcome.steps,
            tokens=outcome.tokens,
            tokens_per_s=outcome.tokens_per_s,
            training_seconds=round(outcome.seconds, 3),
            train_loss=outcome.lines[-1]["loss"] if outcome.lines else None,
            **prepared.about(),
            **figures,
        )
        states.clear()


def sampler(tokenizer: Tokenizer, prompts: list[list[int]]) -> Sampler:
    """Return what says how a model goes on from ``prompts``, token ids, at its likeliest."""

    def said(model: Model) -> list[str]:
        texts = []
        for prompt in prompts:
            limit = min(SAMPLE_TOKENS, model.config.context - len(prompt))
            request = Request(prompt=prompt, limit=limit, dice=Dice(0))
            batch = Batch(model, [request], stop=tokenizer.special)
            while batch.live:
                batch.step()
            texts.append(tokenizer.decode([*prompt, *request.said]))
        return texts

    return said


def step_tokens(data: Data, asked: int, ranks: Ranks, *, stage: str) -> int:
    """Return how many tokens a step takes, and log where whole rows make it other than ``asked``.

    Args:
        data: What is trained on.
        asked: The ``batch_tokens`` of the stage.
        ranks: The processes that share the rows.
        stage: Name of the stage.
    """
    if not isinstance(data, Even):
        return asked
    rows, length = data.batch_rows, data.batch(0).ids_BT.shape[1]
    if ranks.first and rows * length != asked:
        logger.info(
            "%s: a step takes %s tokens, %s whole rows of %s, not the %s of %s.batch_tokens",
            *(stage, f"{rows * length:,}", f"{rows:,}", f"{length:,}", f"{asked:,}", stage),
        )
    if ranks.first and rows < ranks.world:
        logger.warning(
            "%s: %d of %d processes have nothing to do: a step has %d rows. Raise "
            "%s.batch_tokens to %s or more, or take fewer processes.",
            *(stage, ranks.world - rows, ranks.world, rows, stage, f"{ranks.world * length:,}"),
        )
    return rows * length


def forecast(model: Model, tokens: int, ranks: Ranks, *, usd: float) -> dict[str, float] | None:
    """Return how long training on ``tokens`` should take, and cost; None where nobody knows.

    Args:
        model: Its operations count.
        tokens: In all.
        ranks: Their devices.
        usd: Of all of them, an hour.
    """
    peak = hardware.peak_of(ranks.device)
    if peak is None:
        return None
    seconds = model.config.flops_per_token * tokens / (UTILISATION * peak * ranks.world)
    return {"seconds": round(seconds, 1), "usd": round(seconds / 3600 * usd, 4)}
