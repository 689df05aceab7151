"""The figures of a stage while it trains, averaged over stretches of its steps."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

LINES = 200
"""Lines of metrics a stage, at most about this many."""
POINTS = 2000
"""Points of a curve on TensorBoard or Weights & Biases, at most about this many."""

Figures = dict[str, Any]
"""step, loss, lr, grad_norm, tokens_per_s, utilisation, memory_mb, data_wait, elapsed."""


class Stretch:
    """Steps since the last line."""

    def __init__(self, *, waited: float, losses: list[float]) -> None:
        """Begin now, when the loader has made the model wait for ``waited`` seconds."""
        self.began, self.waited, self.losses, self.tokens = time.monotonic(), waited, losses, 0

    def figures(self, *, waited: float) -> Figures:
        """Return means over these steps: nats, tokens a second, share of the time that waited."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return {
            "loss": round(sum(self.losses) / len(self.losses), 5),
            "tokens_per_s": round(self.tokens / seconds, 1),
            "data_wait": round((waited - self.waited) / seconds, 4),
        }


class Record:
    """The figures of a stage, averaged over stretches of its steps.

    A line of metrics stands for a longer stretch than a point of a curve: the lines are an
    artifact that the report draws, the points are for who watches a run of days.
    """

    def __init__(
        self,
        steps: int,
        *,
        lines: Iterable[Figures] = (),
        losses: Mapping[str, list[float]] | None = None,
    ) -> None:
        """Begin, or go on where ``lines`` and ``losses`` (see ``state``) left off."""
        self.steps, self.lines = steps, list(lines)
        self.point_every = math.ceil(steps / POINTS) or 1
        self.line_every = self.point_every * (math.ceil(steps / (self.point_every * LINES)) or 1)
        open_losses = losses or {}
        self.stretches = {
            name: Stretch(waited=0.0, losses=list(open_losses.get(name, ())))
            for name in ("point", "line")
        }

    def state(self) -> dict[str, Any]:
        """Return what has to be kept so that the lines go on as if nothing had happened."""
        losses = {name: stretch.losses for name, stretch in self.stretches.items()}
        return {"lines": self.lines, "losses": losses}

    def ends(self, step: int) -> bool:
        """Whether a stretch ends after ``step`` steps, so that its figures are wanted."""
        return step % self.point_every == 0 or step == self.steps

    def add(self, *, loss: float, tokens: int) -> None:
        """Count one more step."""
        for stretch in self.stretches.values():
            stretch.losses.append(loss)
            stretch.tokens += tokens

    def end(self, step: int, *, waited: float, per_token: float | None, **more: Any) -> Figures:
        """End the stretch of points after ``step`` steps, and that of lines where it ends too.

        Args:
            step: From 1.
            waited: Seconds that the loader has made the model wait so far.
            per_token: Share of the devices' peak that one token a second takes; None if unknown.
            more: The figures of the step itself.

        Returns:
            The point.
        """

        def figures(name: str) -> Figures:
            means = self.stretches[name].figures(waited=waited)
            used = None if per_token is None else round(per_token * means["tokens_per_s"], 4)
            found = {"step": step, **means, "utilisation": used, **more}
            self.stretches[name] = Stretch(waited=waited, losses=[])
            return {key: found[key] for key in ORDER}

        if step % self.line_every == 0 or step == self.steps:
            self.lines.append(figures("line"))
        return figures("point")


ORDER = (
    *("step", "loss", "lr", "grad_norm", "tokens_per_s"),
    *("utilisation", "memory_mb", "data_wait", "elapsed"),
)
