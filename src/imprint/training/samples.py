"""What the model says while it trains: a few answers, now and then."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from imprint import records
from imprint.model import Model

logger = logging.getLogger("imprint")

Sampler = Callable[[Model], list[str]]
"""Says what the model says: one text a line of the sample."""


class Samples:
    """Takes samples on one process and keeps them in a file, one JSON object a line."""

    def __init__(
        self, sampler: Sampler, *, minutes: float, path: Path, label: str, begun: int
    ) -> None:
        """Prepare to take a sample every so many ``minutes``.

        Args:
            sampler: Given by the stage.
            minutes: Between two samples.
            path: The file: step and samples. Lines beyond ``begun`` are dropped, because the steps
                they tell of are done again.
            label: Name of the stage, for the log.
            begun: Steps done before now.
        """
        self.sampler, self.seconds, self.path, self.label = sampler, 60 * minutes, path, label
        self.taken = time.monotonic()
        self.failed = False
        before = records.lines(path) if path.is_file() else ()
        self.lines = [line for _, line in before if line["step"] <= begun]

    @property
    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self.taken > self.seconds

    def take(self, model: Model, step: int) -> None:
        """Log and write what ``model`` says after ``step`` steps; training is not disturbed.

        A sampler that fails stops nothing and is told of once.
        """
        training, on_gpu = model.training, model.device.type == "cuda"
        try:
            with torch.no_grad(), torch.random.fork_rng([model.device] if on_gpu else []):
                said = self.sampler(model)
            for text in said:
                logger.info("%s after step %d: %s", self.label, step, text)
            kept = [line for line in self.lines if line["step"] < step]
            self.lines = [*kept, {"step": step, "samples": said}]
            records.write_lines(self.path, self.lines)
        except Exception as error:
            if not self.failed:
                logger.warning("%s: no samples (%s); training goes on", self.label, error)
            self.failed = True
        finally:
            model.train(training)
            self.taken = time.monotonic()
