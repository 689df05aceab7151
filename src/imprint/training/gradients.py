"""Gradients of a batch: on a CPU, its two halves are worked out side by side.

Two halves with half the threads each take 20 % less time than all threads on the whole (measured on
2 cores: 79 against 97 ms a step), because threads then meet once a step, not once an operation; and
one core gives the same bits as two. To compile the layers as well changes nothing on two cores
(1.0 times as fast for d4 in bfloat16). On a GPU they are compiled, and as many rows go through at
once as its memory holds.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from imprint import cross_entropy, float8, layers
from imprint.dataset.batch import Batch
from imprint.errors import ImprintError
from imprint.model import Compiled, Model
from imprint.shape import ModelConfig

logger = logging.getLogger("imprint")

HALVES = 2
CPU_TOKENS = 65_536
"""Most tokens at once on a CPU: 2 GB for 12 layers of 768."""
KEPT = 10.2
"""Numbers of width C that a token and layer keep for the way back, as a test counts them: two for
norms, one each for queries, keys, values and what they mix, four for the MLP, and little scales."""
BETWEEN = 40
"""The same for what one layer, at work, makes and drops."""
WAYS_OUT = (
    "Take a GPU with more memory, see that nothing else runs on this one, or lower model.depth "
    "or model.context."
)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Gradients:
    """Works out gradients of ``model``; use it as a context, because it holds threads."""

    def __init__(self, model: Model, *, dtype: torch.dtype, eight: bool = False) -> None:
        """Work on ``model`` where it lives.

        Args:
            model: Its weights stay in their own number type.
            dtype: Number type to calculate in.
            eight: Whether to multiply in float8 what the layers multiply, inside the context.

        Raises:
            ConfigError: The device does not multiply float8.
        """
        self.model, self.dtype, self.eight = model, dtype, eight
        if eight:
            float8.refuse(model.device)
        self.weights = list(model.parameters())
        self.halvings = 0
        self.pool: ThreadPoolExecutor | None = None
        threads = torch.get_num_threads()
        if model.device.type == "cpu" and threads > 1:
            self.pool = ThreadPoolExecutor(
                HALVES, initializer=torch.set_num_threads, initargs=(max(1, threads // HALVES),)
            )

    def __enter__(self) -> "Gradients":
        layers.use_float8(self.model.layers, eight=self.eight)
        if self.model.device.type == "cuda":
            self.model.compiled = compiled(self.model.device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pool:
            self.pool.shutdown()
        self.model.compiled = None
        layers.use_float8(self.model.layers, eight=False)

    def each(self, work: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """Yield what ``work`` makes of each of ``given``, in order; side by side on a CPU."""
        return self.pool.map(work, given) if self.pool else map(work, given)

    def backward(self, batch: Batch) -> float:
        """Leave in each weight's ``grad`` that of the mean loss; return the loss summed, in nats.

        The mean is over the supervised positions of all processes, so that their gradients add up
        to those of one process with the whole batch. Rows go through the model as many at a time
        as the device's memory holds.

        Raises:
            ImprintError: The GPU's memory is too small.
        """
        while True:
            try:
                return self._backward(batch)
            except torch.OutOfMemoryError:
                pass  # what it had made is let go of only behind this line
            self._halve(batch)

    def _backward(self, batch: Batch) -> float:
        def part(given: Batch) -> tuple[Tensor, tuple[Tensor, ...]]:
            here = given.to(self.model.device)
            nats = self.model.loss(
                here.ids_BT,
                here.where_N,
                here.labels_N,
                documents_BT=here.documents_BT,
                dtype=self.dtype,
            )
            return nats.detach(), torch.autograd.grad(nats / batch.supervised, self.weights)

        for weight in self.weights:
            weight.grad = None
        total = torch.zeros((), device=self.model.device)
        for nats, grads in self.each(part, batch.parts(self._most(batch))):
            total += nats
            for weight, grad in zip(self.weights, grads, strict=True):
                weight.grad = grad if weight.grad is None else weight.grad.add_(grad)
        return total.item()

    def _most(self, batch: Batch) -> int:
        """Return how many tokens go through at once: as few times as there is room for."""
        rows, length = batch.ids_BT.shape
        if self.model.device.type == "cuda":
            times = -(-rows // max(1, room(self.model, self.dtype) // length))
        else:
            times = max(HALVES, -(-rows // max(1, CPU_TOKENS // length)))
        return -(-rows // (times << self.halvings)) * length

    def _halve(self, batch: Batch) -> None:
        most = self._most(batch)
        if self.halvings or most <= batch.ids_BT.shape[1]:
            raise ImprintError(
                f"The GPU's memory has no room for {most:,} tokens at once. {WAYS_OUT}"
            )
        self.halvings += 1
        torch.cuda.empty_cache()
        logger.warning(
            "out of GPU memory with %s tokens at once; goes on with %s. The batch stays the same.",
            f"{most:,}",
            f"{self._most(batch):,}",
        )


@contextmanager
def fitting(where: Callable[[], str]) -> Iterator[None]:
    """Say what to do about a GPU's memory that is full inside the block.

    Args:
        where: Returns what was under way, in sentences; called only then.

    Raises:
        ImprintError: The GPU's memory is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ImprintError(f"{where()} {WAYS_OUT}") from error


def compiled(device: torch.device) -> Compiled | None:
    """Return the compiled forms of what takes the time, or None where they cannot be made."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except Exception as error:  # anything: a compiler is missing, or too old, or cannot write
        logger.warning(
            "torch.compile does not work here (%s): training is slower and takes more memory. "
            "Install a C compiler such as gcc.",
            str(error).partition("\n")[0],
        )
        return None
    torch._dynamo.config.suppress_errors = True  # a shape it cannot cope with is not compiled
    return Compiled(torch.compile(layers.through), torch.compile(cross_entropy.logit_slopes))


def room(model: Model, dtype: torch.dtype) -> int:
    """Return how many tokens at once the GPU's memory has room for in training in ``dtype``."""
    whole = torch.cuda.get_device_properties(model.device).total_memory
    left = 0.9 * whole - fixed_bytes(model.config)
    return max(1, int(left / token_bytes(model.config, dtype)))


def fixed_bytes(config: ModelConfig) -> int:
    """Return the memory of what does not depend on how many tokens go through at once."""
    weights = 24 * config.n_parameters  # weight, gradients, momentum, and what a step makes
    logits = 16 * cross_entropy.CHUNK_GPU * config.vocabulary  # and what becomes of them
    return weights + logits


def token_bytes(config: ModelConfig, dtype: torch.dtype) -> float:
    """Return the memory that a token takes on its way forward and back."""
    return (KEPT * config.depth + BETWEEN) * config.width * dtype.itemsize
