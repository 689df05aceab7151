"""What reading a nanochat and a Hugging Face folder have in common."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imprint.errors import ArtifactError, ConfigError
from imprint.shape import ModelConfig

if TYPE_CHECKING:
    import torch

NEXT = (
    "imprint trains nanochat's architecture of October 2025 only: "
    "take such a model, or leave base.from out."
)


@dataclass(frozen=True)
class Place:
    """Where the parts of a model lie."""

    kind: Literal["nanochat", "Hugging Face"]
    source: str
    """What it is, for people."""
    about: Path
    """JSON that tells its shape."""
    weights: list[Path]
    """Files of the weights, an index among them first."""
    tokenizer: Path

    @property
    def files(self) -> list[Path]:
        """Everything that decides about model and tokenizer."""
        return [self.about, *self.weights, self.tokenizer]


def mapping(path: Path) -> dict[str, Any]:
    """Return the JSON object in ``path``.

    Raises:
        ArtifactError: The file is missing, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Copy the whole folder again.") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON ({error}). Copy the folder again.") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: not a JSON object. Copy the folder again.")
    return found


def demand(path: Path, key: str, found: object, wanted: object) -> None:
    """Refuse a model whose ``key`` is ``found`` and not ``wanted``.

    Raises:
        ArtifactError: They differ.
    """
    if found != wanted:
        raise ArtifactError(f"{path}: {key} is {found!r}, and has to be {wanted!r}. {NEXT}")


def shaped(path: Path, given: Mapping[str, Any], names: tuple[str, ...]) -> ModelConfig:
    """Return the shape that ``given`` describes.

    Args:
        path: Where it was read, for messages.
        given: Whole numbers by name.
        names: What is called there: layers, width, heads, heads of keys and values (None for as
            many as there are heads), tokens of vocabulary, tokens of context.

    Raises:
        ArtifactError: A number is missing, or it is no shape of ours.
    """
    depth, width, heads, keys, vocabulary, context = names

    def whole(key: str) -> int:
        value = given.get(key)
        if type(value) is not int or not 0 < value < 1 << 31:
            raise ArtifactError(
                f"{path}: {key} is {value!r}, and has to be a whole number above 0. "
                "Copy the folder again."
            )
        return value

    demand(path, width, whole(width), 64 * whole(depth))
    n_head = whole(heads)
    n_keys = n_head if given.get(keys) is None else whole(keys)
    if whole(width) % n_head:
        raise ArtifactError(
            f"{path}: {heads} is {n_head}, which does not divide the width {whole(width)}. {NEXT}"
        )
    try:
        return ModelConfig(
            depth=whole(depth),
            vocabulary=whole(vocabulary),
            context=whole(context),
            head_width=whole(width) // n_head,
            n_kv_head=None if n_keys == n_head else n_keys,
        )
    except ConfigError as error:
        raise ArtifactError(f"{path}: {str(error).rstrip('.')}. {NEXT}") from error


def fitted(
    found: Mapping[str, Any],
    config: ModelConfig,
    *,
    path: Path,
    theirs: Callable[[str], str] = str,
) -> "dict[str, torch.Tensor]":
    """Return the weights of ``found`` by nanochat's names, float32, if they are those of a model.

    Args:
        found: Weights by the names that they have in the file.
        config: The shape of the model.
        path: Where they were read, for messages.
        theirs: Turns nanochat's name of a weight into the one in the file.

    Raises:
        ArtifactError: A weight is missing, unknown, of another shape, or not of finite numbers.
    """
    import torch

    from imprint.model import Model

    if config.depth > len(found):  # before a broken config asks for a million layers
        raise ArtifactError(
            f"{path}: {len(found)} weights are too few for {config.depth} layers. "
            "Copy the folder again."
        )
    with torch.device("meta"):
        shapes = {
            name: weight.shape for name, weight in Model(config, seed=None).named_parameters()
        }
    names = {theirs(name): name for name in shapes}
    if unknown := [name for name in found if name not in names]:
        raise ArtifactError(f"{path}: has a weight {unknown[0]}, of another architecture. {NEXT}")
    if missing := [name for name in names if name not in found]:
        raise ArtifactError(f"{path}: has no weight {missing[0]}. Copy the folder again.")
    weights = {}
    for called, name in names.items():
        weight = found[called]
        if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
            raise ArtifactError(f"{path}: {called} holds no weights. {NEXT}")
        if weight.shape != shapes[name]:
            raise ArtifactError(
                f"{path}: {called} has the shape {list(weight.shape)}, and should have "
                f"{list(shapes[name])} by the model's configuration. Copy the folder again."
            )
        weights[name] = weight.detach().float().contiguous()
        if not weights[name].isfinite().all():
            raise ArtifactError(
                f"{path}: {called} has values that are no numbers. Take an earlier checkpoint."
            )
    return weights
