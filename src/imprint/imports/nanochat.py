"""A checkpoint folder of nanochat as of October 2025.

nanochat keeps ``base_checkpoints/<name>/model_<step>.pt`` with ``meta_<step>.json`` beside it, and
``tokenizer/tokenizer.pkl`` for all its models.
"""

import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.errors import ArtifactError
from imprint.imports.common import NEXT, Place, fitted, mapping, shaped
from imprint.shape import ModelConfig

if TYPE_CHECKING:
    import torch

SHAPE = ("n_layer", "n_embd", "n_head", "n_kv_head", "vocab_size", "sequence_len")
"""All that the configuration of such a model says; later versions say more."""
TOKENIZERS = ("tokenizer.pkl", "tokenizer.json")


def models(folder: Path) -> list[Path]:
    """Return the model files in ``folder`` or, if there is none, in its base_checkpoints.

    Of a folder with several steps it is the newest one.
    """
    if newest := _newest(folder):
        return [newest]
    below = sorted((folder / "base_checkpoints").glob("*/"))
    return [newest for place in below if (newest := _newest(place))]


def place(model: Path) -> Place:
    """Return where the parts of ``model`` lie, which is a model_<step>.pt.

    Raises:
        ArtifactError: There is no tokenizer.
    """
    step = model.stem.removeprefix("model_")
    home = Path(os.path.normpath(model.parent / ".." / ".."))
    folders = (model.parent, model.parent / "tokenizer", home / "tokenizer")
    candidates = [place / name for place in folders for name in TOKENIZERS]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise ArtifactError(
            f"{candidates[0]}: no such file, and none in {folders[2]}. "
            "Copy the tokenizer of the model to one of them."
        )
    about = model.with_name(f"meta_{step}.json")
    source = f"nanochat {model.parent.name or model.parent.absolute().name}, step {int(step)}"
    return Place("nanochat", source, about, [model], found[0])


def shape(place: Place) -> ModelConfig:
    """Return the shape of the model in ``place``.

    Raises:
        ArtifactError: The file about it is damaged, or it is of another architecture.
    """
    about = mapping(place.about).get("model_config")
    if not isinstance(about, dict):
        raise ArtifactError(f"{place.about}: has no model_config. Copy the folder again.")
    if odd := [key for key in about if key not in SHAPE]:
        raise ArtifactError(
            f"{place.about}: model_config has {odd[0]}, of another version of nanochat. {NEXT}"
        )
    return shaped(place.about, about, SHAPE)


def read(place: Place) -> "tuple[dict[str, torch.Tensor], ModelConfig]":
    """Return weights, float32 by nanochat's names, and shape of the model in ``place``.

    Raises:
        ArtifactError: A file is damaged, of another architecture, or holds code.
    """
    config = shape(place)
    (path,) = place.weights
    found = {name.removeprefix("_orig_mod."): value for name, value in _load(path).items()}
    return fitted(found, config, path=path), config


def _newest(folder: Path) -> Path | None:
    steps = {
        int(match.group(1)): path
        for path in folder.glob("model_*.pt")
        if (match := re.fullmatch(r"model_(\d+)\.pt", path.name))
    }
    return steps[max(steps)] if steps else None


def _load(path: Path) -> "dict[str, object]":
    import torch

    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as parts:
                if any(part.compress_type != zipfile.ZIP_STORED for part in parts.infolist()):
                    raise ValueError(
                        "compressed, which torch does not do"
                    )  # may unpack to any size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused anyway
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: holds code or foreign objects, which imprint does not open. "
            "Take a model file that nanochat has written."
        ) from error
    except Exception as error:  # of a damaged file anything can come
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path}: damaged or not a checkpoint ({reason}). Copy the file again."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ArtifactError(f"{path}: holds no weights by name. Take a model_<step>.pt.")
    return found
