"""Batches prepared ahead, while the model works on those before."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from imprint.dataset.batch import Batch, Data

AHEAD = 3
"""Batches that wait for the model at most."""


class Loader:
    """Yields the batches of ``data`` in order; a thread makes them, pinned for a GPU.

    Example:
        >>> class Counted:
        ...     steps = 3
        ...     def batch(self, step, *, rank=0, world=1):
        ...         ids = torch.tensor([[step]])
        ...         return Batch(ids, None, ids[0], supervised=1, tokens=1)
        >>> with Loader(Counted(), start=1) as batches:
        ...     [batch.ids_BT.item() for batch in batches]
        [1, 2]
    """

    def __init__(
        self,
        data: Data,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
    ) -> None:
        """Prepare to yield the share of ``rank`` in each batch from step ``start`` on.

        Args:
            data: Batches in a fixed order; nobody else may ask it for one meanwhile.
            start: The first step.
            rank: Number of this process.
            world: Count of the processes.
            device: Where the batches are wanted; they are pinned, not moved. None for a CPU.
        """
        self.data, self.start, self.rank, self.world = data, start, rank, world
        self.device = device if device is not None and device.type == "cuda" else None
        self.waited = 0.0
        """Seconds that the model had to wait for batches."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader", initializer=self._enter)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; what fails in the thread is raised here, in its turn."""
        steps = self.data.steps
        waiting: deque[Future[Batch]] = deque()
        for step in range(self.start, steps):
            while len(waiting) < min(AHEAD, steps - step):
                waiting.append(self._thread.submit(self._prepare, step + len(waiting)))
            began = time.monotonic()
            batch = waiting.popleft().result()
            self.waited += time.monotonic() - began
            yield batch

    def _enter(self) -> None:
        if self.device is not None:  # a new thread is at GPU 0, whatever that of this process is
            torch.cuda.set_device(self.device)

    def _prepare(self, step: int) -> Batch:
        batch = self.data.batch(step, rank=self.rank, world=self.world)
        return batch if self.device is None else batch.pinned()
