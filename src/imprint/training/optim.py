"""Muon for the matrices, AdamW for embedding and head, and how their rates rise and fall."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from imprint.settings import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""A quintic that drives singular values towards one; steep at zero rather than exact."""
ITERATIONS = 5
MOMENTUM = 0.85
"""Stages of some hundred steps learn more with a short memory: 88.8 against 86.6 % at 0.95."""
BETAS = (0.8, 0.95)
EPSILON = 1e-10


def schedule(settings: Optimizer, *, step: int, steps: int) -> float:
    """Return the learning rate of ``step`` (from 0) of ``steps`` as a share of its peak.

    It rises over the first ``warmup`` of the steps, stays at 1, and falls in a straight line to
    ``final`` over the last ``cooldown`` of them.

    Example:
        >>> flat = Optimizer(warmup=0.0, cooldown=0.5, final=0.1)
        >>> [round(schedule(flat, step=step, steps=4), 2) for step in range(4)]
        [1.0, 1.0, 1.0, 0.55]
    """
    rising = settings.warmup * steps
    rise = (step + 1) / rising if step + 1 < rising else 1.0
    falling = settings.cooldown * steps
    left = steps - step
    fall = settings.final + (1 - settings.final) * left / falling if left < falling else 1.0
    return min(rise, fall)


def orthogonal(stack: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return matrices whose singular values are near one, with the singular vectors of ``stack``.

    Args:
        stack: Matrices of one shape, (matrices, rows, columns), rows <= columns.
        dtype: Number type to calculate in; bfloat16 where the machine has it.
    """
    a, b, c = NEWTON_SCHULZ
    x: Tensor = (stack / stack.norm(dim=(1, 2), keepdim=True).add_(1e-7)).to(dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x


class Muon:
    """Momentum whose direction is made orthogonal, matrix by matrix, many at once."""

    def __init__(
        self, weights: Iterable[Tensor], *, lr: float, weight_decay: float, dtype: torch.dtype
    ) -> None:
        """Take care of ``weights``; ``lr`` is the peak rate, ``dtype`` that of the inner work."""
        self.lr, self.weight_decay, self.dtype = lr, weight_decay, dtype
        groups: dict[tuple[int, int], list[Tensor]] = {}
        for weight in weights:
            rows, columns = weight.shape
            groups.setdefault((min(rows, columns), max(rows, columns)), []).append(weight)
        self.groups = list(groups.values())
        self.momenta = [
            torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in zip(groups, self.groups, strict=True)
        ]

    def step(self, share: float, *, each: Callable[..., Iterable[None]] = map) -> None:
        """Move the weights along their gradients, at ``share`` of the peak rate.

        Args:
            share: See ``schedule``.
            each: Like ``map``; may work on matrices of different shape side by side.
        """
        places = range(len(self.groups))
        for _ in each(lambda place: self._step(place, share), places):
            pass

    @torch.no_grad()
    def _step(self, place: int, share: float) -> None:
        group, momentum = self.groups[place], self.momenta[place]
        tall = [weight.shape[0] > weight.shape[1] for weight in group]
        grads = torch.stack(
            [
                _grad(weight).mT if up else _grad(weight)
                for weight, up in zip(group, tall, strict=True)
            ]
        )
        momentum.lerp_(grads, 1 - MOMENTUM)
        grads.lerp_(momentum, MOMENTUM)  # Nesterov: look where the momentum will lead
        moves = orthogonal(grads, dtype=self.dtype).float()
        for weight, move, up in zip(group, moves, tall, strict=True):
            scale = math.sqrt(max(1.0, weight.shape[0] / weight.shape[1]))
            if self.weight_decay:
                weight.mul_(1 - self.lr * share * self.weight_decay)
            weight.add_(move.mT if up else move, alpha=-self.lr * share * scale)

    def state(self) -> dict[str, Any]:
        """Return what has to be kept to go on later."""
        return {"momenta": self.momenta}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        for momentum, saved in zip(self.momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


class AdamW:
    """AdamW without decay, for embedding and head."""

    def __init__(self, weights: Iterable[tuple[Tensor, float]]) -> None:
        """Take care of ``weights``, each with its peak rate."""
        self.weights = list(weights)
        self.means = [torch.zeros_like(weight) for weight, _ in self.weights]
        self.squares = [torch.zeros_like(weight) for weight, _ in self.weights]
        self.steps = 0

    @torch.no_grad()
    def step(self, share: float) -> None:
        """Move the weights along their gradients, at ``share`` of the peak rates."""
        self.steps += 1
        for (weight, lr), mean, square in zip(self.weights, self.means, self.squares, strict=True):
            # torch.optim.AdamW(fused=True) calls this too, after importing a compiler for 2 seconds
            torch._fused_adamw_(
                [weight],
                [_grad(weight)],
                [mean],
                [square],
                [],
                [torch.tensor(float(self.steps), device=weight.device)],
                lr=lr * share,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=0.0,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def state(self) -> dict[str, Any]:
        """Return what has to be kept to go on later."""
        return {"means": self.means, "squares": self.squares, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.steps = state["steps"]
        for kept, saved in ((self.means, state["means"]), (self.squares, state["squares"])):
            for tensor, value in zip(kept, saved, strict=True):
                tensor.copy_(value)


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # only a programmer can step before the backward pass
    return weight.grad
