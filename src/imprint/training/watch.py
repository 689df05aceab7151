"""Curves of a stage while it trains, on TensorBoard and on Weights & Biases."""

import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from imprint.errors import ConfigError
from imprint.settings import Watch
from imprint.training.metrics import Figures

logger = logging.getLogger("imprint")


class Writer(Protocol):
    """Somewhere that curves are drawn."""

    name: str

    def write(self, figures: Figures) -> None:
        """Add a point to each curve."""

    def flush(self) -> None:
        """See that nothing is lost if the process is killed now."""

    def close(self, *, failed: bool) -> None:
        """Take leave."""


class TensorBoard:
    """Event files in a folder."""

    name = "TensorBoard"

    def __init__(self, folder: Path, *, begun: int) -> None:
        """Write to ``folder``; points beyond ``begun`` that are there already are taken back."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing("tensorboard") from None
        self.writer = SummaryWriter(str(folder), purge_step=begun + 1)

    def write(self, figures: Figures) -> None:
        """Add a point to each curve."""
        for name, value in figures.items():
            if name != "step" and value is not None:
                self.writer.add_scalar(name, value, figures["step"])

    def flush(self) -> None:
        """Write what waits."""
        self.writer.flush()

    def close(self, *, failed: bool) -> None:
        """Write what waits, and end the file."""
        self.writer.close()


class WandB:
    """A run on Weights & Biases; WANDB_MODE, WANDB_API_KEY and the like are its own variables."""

    name = "Weights & Biases"

    def __init__(
        self, project: str, *, folder: Path, label: str, run: str, about: Mapping[str, Any]
    ) -> None:
        """Begin the run with the id ``run``, or go on with it."""
        try:
            import wandb
        except ImportError:
            raise missing("wandb") from None
        mode = os.environ.get("WANDB_MODE", "online")
        if mode in ("online", "run", "shared") and not os.environ.get("WANDB_API_KEY"):
            raise ConfigError(
                "watch.wandb: WANDB_API_KEY is not set. Put the key in the environment, or set "
                "WANDB_MODE=offline there to keep the run on this machine."
            )
        self.run = wandb.init(
            project=project,
            id=run,
            resume="allow",  # points that it has already are not taken twice
            name=label,
            dir=str(folder),
            config=dict(about),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def write(self, figures: Figures) -> None:
        """Add a point to each curve."""
        values = {name: value for name, value in figures.items() if value is not None}
        self.run.log(values, step=values.pop("step"))

    def flush(self) -> None:
        """Do nothing: wandb writes in a process of its own."""

    def close(self, *, failed: bool) -> None:
        """End the run, or leave it to be gone on with."""
        self.run.finish(exit_code=int(failed))


def missing(package: str) -> ConfigError:
    """Say that ``package`` is wanted, and how to get it."""
    return ConfigError(
        f"watch.{package}: the package {package} is not installed. Run `pip install {package}`, "
        f"or take watch.{package} out of the configuration."
    )


class Writers:
    """The writers that ``watch`` asks for; one that fails is told of once and stops nothing."""

    def __init__(
        self,
        watch: Watch,
        *,
        folder: Path,
        label: str,
        begun: int,
        run: str | None = None,
        about: Mapping[str, Any],
    ) -> None:
        """Begin, or go on after step ``begun``.

        Args:
            watch: Which ones.
            folder: results/, where they put their files.
            label: Name of the stage.
            begun: Steps done before now.
            run: Id of the run that goes on; None for a new one.
            about: Settings, as plain types.

        Raises:
            ConfigError: A package is missing, or the key of Weights & Biases.
        """
        self.label, self.run = label, run or secrets.token_hex(4)
        self.writers: list[Writer] = []
        self.failed: set[str] = set()
        if watch.tensorboard:
            self.writers.append(TensorBoard(folder / "tensorboard" / label, begun=begun))
        if watch.wandb:
            try:
                self.writers.append(
                    WandB(watch.wandb, folder=folder, label=label, run=self.run, about=about)
                )
            except ConfigError:
                raise
            except Exception as error:  # no network, for one
                self._failed(WandB.name, error)

    def __enter__(self) -> "Writers":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._all("close", failed=kind is not None)

    def write(self, figures: Figures) -> None:
        """Add a point to each curve."""
        self._all("write", figures)

    def flush(self) -> None:
        """See that nothing is lost if the process is killed now."""
        self._all("flush")

    def _all(self, act: str, *given: Any, **named: Any) -> None:
        for writer in self.writers:
            try:
                getattr(writer, act)(*given, **named)
            except Exception as error:
                self._failed(writer.name, error)

    def _failed(self, name: str, error: Exception) -> None:
        if name not in self.failed:
            logger.warning("%s: %s fails (%s); training goes on", self.label, name, error)
        self.failed.add(name)
