"""Checkpoints: weights and what they are, as plain types, the same bytes for the same content."""

import contextlib
import io
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint import artifacts
from imprint.errors import ArtifactError

if TYPE_CHECKING:
    import torch

    from imprint.model import Model

FORMAT = 1


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
        from imprint.model import Model, ModelConfig

        model = Model(ModelConfig(**self.config), seed=None)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ArtifactError(
                f"{self.stage}: the weights do not fit the model ({str(error).splitlines()[-1]}). "
                "Delete the checkpoint and run again."
            ) from error
        return model


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
    if found.get("format") != FORMAT or not wanted <= set(found):
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

    buffer = io.BytesIO()  # a file's own name would stand in its bytes
    torch.save(_fresh(content), buffer)
    with artifacts.written(path, "wb") as file:
        file.write(buffer.getbuffer())


def read(path: Path) -> dict[str, Any]:
    """Return the plain types and tensors in ``path``.

    Raises:
        ArtifactError: The file is missing, damaged, or holds more than plain types.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused anyway
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file. Run `make identity` to build it.") from error
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path}: holds code or foreign objects, which imprint does not open. "
            "Delete it and run again."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
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


class States:
    """Where a stage can go on after a kill: the newest two states, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Keep states in ``folder``, which belongs to one stage, one set of settings and inputs."""
        self.folder = folder

    def paths(self) -> list[Path]:
        """Return the states there are, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, then let go of all but the newest two."""
        write(self.folder / f"step-{step:09d}.pt", content)
        for path in self.paths()[:-2]:
            path.unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, None if there is none."""
        for path in reversed(self.paths()):
            with contextlib.suppress(ArtifactError):
                return read(path)
        return None

    def clear(self) -> None:
        """Delete all states: the stage has finished."""
        for path in [*self.folder.glob("*"), *self.folder.glob(".*.tmp")]:
            path.unlink(missing_ok=True)
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()
