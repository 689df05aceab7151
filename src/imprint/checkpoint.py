"""Checkpoints: weights and what they are, as plain types, the same bytes for the same content."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from imprint import artifacts
from imprint.errors import ArtifactError

if TYPE_CHECKING:
    import torch

    from imprint.model import Model

FORMAT = 1
KINDS = {"weights": dict, "config": dict, "tokenizer": str}
"""Types of what is opened or compared before a weight is."""


@dataclass(frozen=True)
class Checkpoint:
    """What a ``.pt`` file holds."""

    weights: "dict[str, torch.Tensor]"
    """By nanochat's parameter names, float32."""
    config: dict[str, Any]
    """Of the model."""
    tokenizer: str
    """Digest of the tokenizer that the model speaks."""
    settings: dict[str, Any]
    """That shaped the weights, of this stage."""
    seed: int
    step: int
    """Optimizer steps of this stage."""
    stage: str
    versions: dict[str, str]
    """Of the libraries."""

    def model(self) -> "Model":
        """Return a model with these weights.

        Raises:
            ArtifactError: The weights do not fit the config.
        """
        from imprint.model import Model
        from imprint.shape import ModelConfig

        for name, value in self.config.items():
            if (type(value) is not int or value < 1) and (name, value) != ("n_kv_head", None):
                raise self._foreign(f"{name} is {value!r}")
        try:
            config = ModelConfig(**self.config)
        except TypeError as error:
            raise self._foreign(str(error).partition(" ")[2]) from None
        model = Model(config, seed=None)
        fill(model, self.weights, where=f"the checkpoint of {self.stage}")
        return model

    def _foreign(self, reason: str) -> ArtifactError:
        return ArtifactError(
            f"{self.stage}: the checkpoint is of another architecture ({reason}). "
            "Delete it and run again."
        )


def fill(model: "Model", weights: "Mapping[str, torch.Tensor]", *, where: str) -> None:
    """Copy ``weights`` into ``model``.

    Raises:
        ArtifactError: A weight is missing, unknown or of another shape; it is named.
    """
    import torch

    def shape(value: object) -> str:
        return " x ".join(map(str, value.shape)) if isinstance(value, torch.Tensor) else "no weight"

    wanted = model.state_dict()
    for name in sorted({*wanted, *weights}):
        found, needed = shape(weights.get(name)), shape(wanted.get(name))
        if found != needed:
            raise ArtifactError(
                f"{where}: the weights do not fit the model: {name} is {found}, and should be "
                f"{needed}. Delete the file and run again."
            )
    model.load_state_dict(dict(weights))


def save(
    path: Path,
    model: "Model",
    *,
    tokenizer: str,
    settings: Mapping[str, Any],
    seed: int,
    step: int,
    stage: str,
) -> None:
    """Write ``model`` to ``path``, complete or not at all.

    Args:
        path: The ``.pt`` file.
        model: Its weights and its config are written.
        tokenizer: Digest of the tokenizer that made its training data.
        settings: That shaped the weights, as plain types.
        seed: Of every random choice.
        step: Optimizer steps taken in this stage.
        stage: Name of the stage.
    """
    about = {
        "format": FORMAT,
        "config": model.config.plain(),
        "tokenizer": tokenizer,
        "settings": dict(settings),
        "seed": seed,
        "step": step,
        "stage": stage,
        "versions": artifacts.library_versions(),
    }
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    write(path, {**about, "weights": weights})


def load(path: Path, *, tokenizer: str | None = None) -> Checkpoint:
    """Return the checkpoint in ``path``; nothing in the file is ever run as code.

    Args:
        path: The ``.pt`` file.
        tokenizer: Digest of the tokenizer to be used with it; None to skip the comparison.

    Raises:
        ArtifactError: The file is missing, damaged, foreign, or goes with another tokenizer.
    """
    found = read(path)
    wanted = set(Checkpoint.__dataclass_fields__)
    shaped = all(isinstance(found.get(name), kind) for name, kind in KINDS.items())
    if found.get("format") != FORMAT or not wanted <= set(found) or not shaped:
        raise ArtifactError(
            f"{path}: not a checkpoint of this version of imprint. Delete it and run again."
        )
    checkpoint = Checkpoint(**{name: found[name] for name in wanted})
    if tokenizer is not None and tokenizer != checkpoint.tokenizer:
        raise ArtifactError(
            f"{path}: was trained with another tokenizer ({checkpoint.tokenizer[:12]}, not "
            f"{tokenizer[:12]}). Rebuild it: delete the file and run again."
        )
    return checkpoint


def write(path: Path, content: dict[str, Any]) -> None:
    """Write plain types and tensors to ``path`` so that equal content gives equal bytes."""
    import torch

    with artifacts.written(path, "wb") as file:
        sink = _Sink(file)  # no path: a file's own name would stand in its bytes
        try:
            torch.save(_fresh(content), sink)  # type: ignore[arg-type]
        except RuntimeError:
            if sink.error is not None:
                raise sink.error from None
            raise


class _Sink:
    """A file that remembers why it could not be written: torch tells of a wrong position only."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def read(path: Path) -> dict[str, Any]:
    """Return the plain types and tensors in ``path``.

    Raises:
        ArtifactError: The file is missing, damaged, or holds more than plain types.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused anyway
            zipped = zipfile.is_zipfile(path)
            if zipped:  # torch itself would take changed bytes for numbers
                with zipfile.ZipFile(path) as archive:
                    if broken := archive.testzip():
                        raise ValueError(f"{broken} has changed since it was written")
            # mapped: of a state of gigabytes, eight processes share one copy
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Run `make identity` to build it.") from error
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: holds code or foreign objects, which imprint does not open. "
            "Delete it and run again."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path}: damaged or not a checkpoint ({reason}). Delete it and run again."
        ) from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: not a checkpoint. Delete it and run again.")
    return found


def _fresh(value: Any) -> Any:
    """Copy plain types, because pickle writes a string that it has met before as a reference."""
    if isinstance(value, Mapping):
        return {_fresh(key): _fresh(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fresh(item) for item in value]
    if isinstance(value, str):
        return json.loads(json.dumps(value))
    return value
