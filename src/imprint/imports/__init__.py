"""Models that others have trained: a nanochat or a Hugging Face folder becomes weights and words.

Nothing in such a folder is ever run as code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.errors import ArtifactError, ConfigError
from imprint.imports import huggingface, nanochat, vocabulary
from imprint.imports.common import Place
from imprint.shape import ModelConfig
from imprint.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere."""

    weights: "dict[str, torch.Tensor]"
    """By nanochat's parameter names, float32, on the CPU."""
    config: ModelConfig
    source: str
    """What it was, for people."""
    files: list[Path]
    """All that was read."""


def load(folder: Path) -> Imported:
    """Return the model in ``folder``.

    Args:
        folder: nanochat's base directory, one of its checkpoint folders, or a Hugging Face folder.

    Raises:
        ConfigError: There is no model, or there are several.
        ArtifactError: A file is missing, damaged, of another architecture, or holds code; or the
            tokenizer has not the vocabulary of the model.
    """
    place = _find(folder)
    read = nanochat.read if place.kind == "nanochat" else huggingface.read
    weights, config = read(place)
    known = _words(place).vocabulary
    if known != config.vocabulary:
        raise ArtifactError(
            f"{place.tokenizer}: has {known:,} tokens, but the model of {place.about} has "
            f"{config.vocabulary:,}. Put the tokenizer there that the model was trained with."
        )
    return Imported(weights, config, place.source, place.files)


def tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of the model in ``folder``; the weights are not read.

    Raises:
        ConfigError: There is no model, or there are several.
        ArtifactError: The tokenizer is missing or damaged, holds code, lacks a special token, or
            does not give a text back as it was.
    """
    return _words(_find(folder))


def shape(folder: Path) -> ModelConfig:
    """Return the shape of the model in ``folder``; the weights are not read.

    Raises:
        ConfigError: There is no model, or there are several.
        ArtifactError: A file is missing or damaged, or the model is of another architecture.
    """
    place = _find(folder)
    read = nanochat.shape if place.kind == "nanochat" else huggingface.shape
    return read(place)


def files(folder: Path) -> list[Path]:
    """Return the files that ``load`` would read of ``folder``, without reading the weights.

    Raises:
        ConfigError: There is no model, or there are several.
        ArtifactError: A file is missing.
    """
    return _find(folder).files


def _words(place: Place) -> Tokenizer:
    pickled = place.tokenizer.suffix == ".pkl"
    return (vocabulary.from_pickle if pickled else vocabulary.from_json)(place.tokenizer)


def _find(folder: Path) -> Place:
    folder = folder.expanduser()  # nanochat's own is ~/.cache/nanochat
    if not folder.is_dir():
        fact = "is a file, not a folder" if folder.is_file() else "no such folder"
        raise ConfigError(
            f"base.from: {folder}: {fact}. Name a nanochat or Hugging Face folder, "
            "or leave base.from out to train a model."
        )
    models = [*huggingface.models(folder), *nanochat.models(folder)]
    if not models:
        raise ConfigError(
            f"base.from: {folder}: holds no model: no model_<step>.pt of nanochat, there or in "
            "base_checkpoints, and no config.json. Name the folder of a model."
        )
    if len(models) > 1:
        listed = ", ".join(str(model) for model in models)
        raise ConfigError(
            f"base.from: {folder}: holds several models ({listed}). Name the folder of one."
        )
    (model,) = models
    return huggingface.place(model) if model.suffix == ".json" else nanochat.place(model)
