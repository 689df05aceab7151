"""What shapes each stage: the settings, the version or the code, and nothing else.

The workflow makes these its rule params, so they alone decide what is out of date, whatever else
changes. A slow or paid stage counts by the VERSION in its module, which a person raises; a cheap
one by its code: see ``fingerprint``.
"""

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from imprint import imports, providers, sources
from imprint.errors import ConfigError
from imprint.scale import Training
from imprint.settings import Provision, Settings
from imprint.training.watch import missing

UPSTREAM = {
    "plan": (),
    "shards": ("plan",),
    "identity": ("shards",),
    "corpus": (),
    "tokenizer": ("corpus",),
    "tokens": ("tokenizer", "identity"),
    "base": ("tokens",),
    "mid": ("base", "tokens"),
    "sft": ("mid", "tokens"),
    "evaluate": ("base", "mid", "sft"),
    "report": ("evaluate",),
}
"""What each stage is made from; in the order in which they run. More exactly: `upstream`."""

STAGES = tuple(UPSTREAM)

STORES = ("corpus", "identity", "mid", "sft")
"""What is cut into tokens, each by itself: plain text, the identity, and each stage's chat."""

TEXT_OF = {"corpus": ("corpus",), "identity": ("identity",)}
"""The stage that makes what is cut; general chat comes from sources."""

SHAPELESS = {"checkpoint_minutes", "watch", "gpu_usd_per_hour"}
"""Settings of a training stage that leave the weights as they are."""

LIBRARY = Path(str(files("imprint")))

_VERSION = re.compile(r"^VERSION = (\d+)$", re.MULTILINE)


def version(stage: str, library: Path = LIBRARY) -> int:
    """Return the VERSION in the module of ``stage``, read without importing it (and torch).

    Raises:
        ValueError: The module has no line ``VERSION = <integer>``.
    """
    found = _VERSION.search((library / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"stages/{stage}.py: no line `VERSION = <integer>`. Add one.")
    return int(found.group(1))


def label(stage: str) -> str:
    """Return the version of ``stage`` as a rule param.

    With its name, since Snakemake compares params as a set of values: a plain 1 that becomes 2
    could hide behind another param that is 1 or 2.
    """
    return f"{stage} version {version(stage)}"


def settings(stage: str, given: Settings) -> dict[str, Any]:
    """Return the part of the settings that shapes the output of ``stage``, as plain types.

    What only shapes the run, such as the time between two saved states, is left out.
    """
    if stage == "plan":
        return {"seed": given.seed}
    if stage == "shards":
        provider = providers.find(given.provider)
        return {
            "provider": given.provider,
            "model": given.provider_model or provider.default_model,
            "provider_version": provider.version,
        }
    if stage == "identity":
        return {
            "validation": given.validation,
            "near_duplicate": given.near_duplicate,
            "per_suite": given.evaluation.per_suite,
            "seed": given.seed,
        }
    if stage == "corpus":
        source = sources.find(given.corpus.source)
        return {
            "source": given.corpus.source,
            "source_version": source.version,
            "characters": given.corpus.characters,
            "seed": given.seed,
        }
    if stage == "tokenizer" and given.base.start:
        return {"from": given.base.start}
    if stage == "tokenizer":
        return {
            "vocabulary": given.model.vocabulary,
            "characters": given.corpus.tokenizer_characters,
            "from": given.base.start,
        }
    if stage == "base" and given.base.start:  # the shape is that of the model there
        return {"training": {"from": given.base.start}, "seed": given.seed}
    if stage == "base":
        return {
            "model": given.model.model_dump(),
            "training": _training(given.base),
            "seed": given.seed,
        }
    if stage in ("mid", "sft"):
        tuning = given.mid if stage == "mid" else given.sft
        return {**_training(tuning), "seed": given.seed}
    if stage == "evaluate":
        return {**given.evaluation.model_dump(), "seed": given.seed}
    return {}


def _training(stage: Training) -> dict[str, Any]:
    return stage.model_dump(exclude={*SHAPELESS, "chat"})


def stores(stage: str, given: Settings) -> dict[str, str]:
    """Return the stores of tokens that a training stage reads, by the name of the option."""
    if stage == "base":
        return {} if given.base.start else {"corpus": "corpus"}
    seen = {"identity": "identity"} if stage in given.identity_stages else {}
    return {**seen, "chat": stage} if chats(stage, given)["chat"] else seen


def upstream(given: Settings) -> dict[str, tuple[str, ...]]:
    """Return what each stage is made from with ``given``; each store of tokens for itself."""
    above: dict[str, tuple[str, ...]] = {**UPSTREAM}
    del above["tokens"]
    if given.base.start:
        del above["corpus"]
        above["tokenizer"] = ()
    for stage, before in {"base": (), "mid": ("base",), "sft": ("mid",)}.items():
        above[stage] = (
            *before,
            "tokenizer",
            *(f"tokens/{store}" for store in stores(stage, given).values()),
        )
    cut: dict[str, tuple[str, ...]] = {
        f"tokens/{store}": ("tokenizer", *TEXT_OF.get(store, ())) for store in STORES
    }
    read = {name for of in above.values() for name in of}
    above |= {name: of for name, of in cut.items() if name in read}
    return dict(sorted(above.items(), key=lambda item: STAGES.index(item[0].partition("/")[0])))


def chats(stage: str, given: Settings) -> dict[str, Any]:
    """Return what shapes the general chat that ``stage`` (mid or sft) mixes in."""
    tuning = given.mid if stage == "mid" else given.sft
    wanted = {name: count for name, count in tuning.chat.items() if count}
    return {
        "chat": wanted,
        "versions": {name: sources.find(name).version for name in wanted},
        "seed": given.seed,
    }


def passed(stage: str, given: Settings) -> dict[str, Any]:
    """Return what a training stage is told: the settings that shape it, and those that do not."""
    told = settings(stage, given)
    part: Training = getattr(given, stage)
    rest = part.model_dump(include=SHAPELESS)
    run = {"watch": given.watch.model_dump(), "gpu_usd_per_hour": given.gpu_usd_per_hour}
    if "training" in told:
        return {**told, **run, "training": {**told["training"], **rest}}
    return {**told, **run, **rest}


def provision(given: Settings) -> Provision:
    """Return the part of the settings that says who writes the conversations, on what terms."""
    return Provision(**given.model_dump(include=set(Provision.model_fields)))


def shards(given: Settings) -> dict[str, tuple[int, int]]:
    """Return the name of each shard, with the first conversation in it and the first beyond it.

    Example:
        >>> from types import SimpleNamespace
        >>> shards(SimpleNamespace(provider="template", conversations=120, shard_size=50))
        {'0000': (0, 50), '0001': (50, 100), '0002': (100, 120)}
    """
    provider = providers.find(given.provider)
    count = given.conversations or provider.conversations
    size = given.shard_size or provider.shard_size
    return {
        f"{index:04d}": (start, min(start + size, count))
        for index, start in enumerate(range(0, count, size))
    }


def check(given: Settings) -> None:
    """Refuse a configuration that names what is not there, or leaves nothing to train on.

    Raises:
        ConfigError: A provider or source is unknown; the message says which there are. Or the model
            to start from is not there, or has another depth. Or a package is not installed. Or
            mid or sft would see neither the identity nor general chat.
    """
    providers.find(given.provider)
    for name in (given.corpus.source, *given.mid.chat, *given.sft.chat):
        sources.find(name)
    _check_rows("mid", given)
    _check_rows("sft", given)
    for package in ("tensorboard", "wandb"):
        if getattr(given.watch, package) and find_spec(package) is None:
            raise missing(package)
    if given.base.start:
        depth = imports.shape(Path(given.base.start)).depth
        if depth != given.model.depth:
            raise ConfigError(
                f"model.depth: {given.model.depth}, but the model in {given.base.start} has "
                f"{depth} layers. Set model.depth to {depth}."
            )


def _check_rows(stage: str, given: Settings) -> None:
    if chats(stage, given)["chat"]:
        return
    if stage not in given.identity_stages:
        raise ConfigError(
            f"{stage}.chat: names no source, and {stage} is not in identity_stages, so that it has "
            f"nothing to train on. Name a source in {stage}.chat, or add {stage} to the list."
        )
    tuning = given.mid if stage == "mid" else given.sft
    if not tuning.identity_epochs:
        raise ConfigError(
            f"{stage}.identity_epochs: 0, and {stage}.chat names no source, so that there is "
            f"nothing to train on. Raise {stage}.identity_epochs, or name a source in {stage}.chat."
        )
