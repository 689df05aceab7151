"""Muon for the matrices, AdamW for embedding and head, and how their rates rise and fall.

The work is divided: gradients are added up over all processes so that each gets the whole of its
share alone, which it keeps momentum for and works out the move of; then the moves are exchanged.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from imprint.model import Model
from imprint.scale import Optimizer, Training
from imprint.training.distributed import Ranks

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""A quintic that drives singular values towards one; steep at zero rather than exact."""
ITERATIONS = 5
MOMENTUM, MOMENTUM_STEPS = 0.85, 300
"""Where momentum starts, and when it has risen to what is set. Stages of some hundred steps learn
more with a short memory: 88.8 against 86.6 % at 0.95."""
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


class Pace(NamedTuple):
    """How far a step goes."""

    step: int
    """From 0."""
    share: float
    """Of the peak rates; see ``schedule``."""
    momentum: float
    """Muon's."""


class Part(Protocol):
    """Weights that are worked on at once, divided among the processes along one axis."""

    count: int
    """Length of that axis."""
    kept: dict[str, Tensor]
    """What is remembered from step to step, of this process's share."""

    def gradient(self) -> Tensor:
        """Return the gradient of all ``count``."""

    def moved(self, gradient: Tensor, pace: Pace) -> Tensor:
        """Return what ``apply`` needs of this share; ``gradient`` is used up."""

    def apply(self, moves: Tensor, pace: Pace) -> None:
        """Change all ``count`` weights by what the processes have worked out."""


class Muon:
    """Momentum whose direction is made orthogonal, for matrices of one shape, all at once."""

    def __init__(
        self,
        weights: list[Tensor],
        *,
        lr: float,
        weight_decay: float,
        ranks: Ranks,
        dtype: torch.dtype,
    ) -> None:
        """Take care of ``weights``, of one shape or its transpose.

        Args:
            weights: The matrices; each process works on some of them.
            lr: The peak rate.
            weight_decay: Share of the weights that goes each step, at a rate of 1.
            ranks: The processes that divide the work.
            dtype: Number type of the work on directions.
        """
        self.weights, self.lr, self.weight_decay, self.dtype = weights, lr, weight_decay, dtype
        self.count = len(weights)
        self.tall = [weight.shape[0] > weight.shape[1] for weight in weights]
        size = -(-self.count // ranks.world)
        shape = sorted(weights[0].shape)
        self.kept = {"momentum": torch.zeros(size, *shape, device=weights[0].device)}

    @torch.no_grad()  # holds in one thread, and these may run in several
    def gradient(self) -> Tensor:
        """Return the gradients, each lying on its long side."""
        pairs = zip(self.weights, self.tall, strict=True)
        return torch.stack([_grad(weight).mT if up else _grad(weight) for weight, up in pairs])

    @torch.no_grad()
    def moved(self, gradient: Tensor, pace: Pace) -> Tensor:
        """Return the orthogonal directions of this share."""
        momentum = self.kept["momentum"].lerp_(gradient, 1 - pace.momentum)
        gradient.lerp_(momentum, pace.momentum)  # Nesterov: look where the momentum will lead
        return orthogonal(gradient, dtype=self.dtype)

    @torch.no_grad()
    def apply(self, moves: Tensor, pace: Pace) -> None:
        """Move every matrix along its direction."""
        lr = self.lr * pace.share
        for weight, move, up in zip(self.weights, moves.float(), self.tall, strict=True):
            scale = math.sqrt(max(1.0, weight.shape[0] / weight.shape[1]))
            if self.weight_decay:
                weight.mul_(1 - lr * self.weight_decay)
            weight.add_(move.mT if up else move, alpha=-lr * scale)


class AdamW:
    """AdamW without decay, for embedding or head, whose rows are divided."""

    def __init__(self, weight: Tensor, *, lr: float, ranks: Ranks) -> None:
        """Take care of ``weight``; ``lr`` is the peak rate."""
        self.weight, self.lr = weight, lr
        self.count = len(weight)
        self.rows = weight.detach()[ranks.share(self.count)]
        self.kept = {name: torch.zeros_like(self.rows) for name in ("mean", "square")}

    def gradient(self) -> Tensor:
        """Return the gradient of all rows."""
        return _grad(self.weight)

    @torch.no_grad()
    def moved(self, gradient: Tensor, pace: Pace) -> Tensor:
        """Return this share of the rows as they are after the step."""
        # torch.optim.AdamW(fused=True) calls this too, after importing a compiler for 2 seconds
        torch._fused_adamw_(
            [self.rows],
            [gradient[: len(self.rows)]],
            [self.kept["mean"]],
            [self.kept["square"]],
            [],
            [torch.tensor(pace.step + 1.0, device=self.rows.device)],
            lr=self.lr * pace.share,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )
        return self.rows

    @torch.no_grad()
    def apply(self, moves: Tensor, pace: Pace) -> None:
        """Take over what the other processes have made of their rows."""
        if moves is not self.rows:
            self.weight.copy_(moves)


class Optimizers:
    """All weights of a model, their gradients summed over all processes, and their next step."""

    def __init__(
        self, model: Model, settings: Training, *, ranks: Ranks, dtype: torch.dtype
    ) -> None:
        """Take care of ``model``.

        Args:
            model: On the device of ``ranks``.
            settings: Rates, momentum and the longest gradient.
            ranks: The processes that divide the work.
            dtype: Number type of Muon's work on directions.
        """
        assert settings.embedding_lr is not None and settings.head_lr is not None  # see dial.py
        self.settings, self.ranks = settings, ranks
        stacks: dict[tuple[int, ...], list[Tensor]] = {}
        for weight in model.matrices():
            stacks.setdefault(tuple(sorted(weight.shape)), []).append(weight)
        self.parts: list[Part] = [
            Muon(
                weights,
                lr=settings.matrix_lr * settings.rate,
                weight_decay=settings.weight_decay,
                ranks=ranks,
                dtype=dtype,
            )
            for stack in stacks.values()
            for weights in _divided(stack)
        ]
        rates = ((model.embedding, settings.embedding_lr), (model.lm_head.weight, settings.head_lr))
        self.parts += [AdamW(weight, lr=lr * settings.rate, ranks=ranks) for weight, lr in rates]

    def step(
        self,
        *,
        step: int,
        steps: int,
        norm: bool = False,
        each: Callable[..., Iterable[Any]] = map,
    ) -> float | None:
        """Move all weights along their gradients; all processes have to come here.

        Args:
            step: From 0.
            steps: How many there will be.
            norm: Whether to measure the gradient, for which all of it has to be there first.
            each: Like ``map``; may work side by side.

        Returns:
            Length of the whole gradient before it is clipped; None if nobody asked.
        """
        settings, parts = self.settings, self.parts
        rise = min(1.0, step / MOMENTUM_STEPS)
        pace = Pace(
            step,
            schedule(settings, step=step, steps=steps),
            MOMENTUM + (settings.momentum - MOMENTUM) * rise,
        )
        sums = [self.ranks.summed(grad) for grad in each(lambda part: part.gradient(), parts)]
        length = None
        if norm or settings.gradient_clip is not None:
            length = self._length([later() for later in sums])
        clip = settings.gradient_clip
        shrink = 1.0 if clip is None or length is None else min(1.0, clip / length)

        def moved(place: int) -> Tensor:
            gradient = sums[place]()
            return parts[place].moved(gradient if shrink == 1 else gradient.mul_(shrink), pace)

        places = range(len(parts))
        moves = [
            self.ranks.gathered(move, part.count)
            for part, move in zip(parts, each(moved, places), strict=True)
        ]
        for _ in each(lambda place: parts[place].apply(moves[place](), pace), places):
            pass
        return length

    def _length(self, shares: list[Tensor]) -> float:
        squares = [torch.linalg.vector_norm(share).square() for share in shares]
        return math.sqrt(self.ranks.total(torch.stack(squares).sum()).item())

    def state(self) -> list[dict[str, Tensor]]:
        """Return what has to be kept to go on later, with any number of processes.

        All processes have to come here; the first gets it, copied to the CPU, others get nothing.
        """
        whole = []
        for part in self.parts:
            gathered = {name: self.ranks.gathered(x, part.count)() for name, x in part.kept.items()}
            if self.ranks.first:
                whole.append({name: x.to("cpu", copy=True) for name, x in gathered.items()})
        return whole

    def restore(self, state: list[dict[str, Tensor]]) -> None:
        """Go on from ``state``."""
        for part, saved in zip(self.parts, state, strict=True):
            mine = self.ranks.share(part.count)
            for name, kept in part.kept.items():
                kept[: mine.stop - mine.start] = saved[name][mine]


def _divided(stack: list[Tensor]) -> list[list[Tensor]]:
    if stack[0].device.type != "cpu":
        return [stack]
    # for two threads: one that has only small matrices would wait, 78 instead of 66 ms a d4 step
    return [half for half in (stack[::2], stack[1::2]) if half]


def _grad(weight: Tensor) -> Tensor:
    assert weight.grad is not None  # only a programmer can step before the backward pass
    return weight.grad
