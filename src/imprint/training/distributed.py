"""One process or many: who am I, sums over all of us, and work divided among us."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imprint.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Later = Callable[[], "Tensor"]
"""Waits for what is under way, and returns it."""


@dataclass(frozen=True)
class Ranks:
    """Place of this process among those that torchrun started; alone without torchrun."""

    rank: int
    world: int
    device: "torch.device"

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    @property
    def device_name(self) -> str:
        """What does the work of this process: the GPU's name, or the CPU's threads."""
        import torch

        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"cpu, {torch.get_num_threads()} threads"

    def total(self, values: "Tensor") -> "Tensor":
        """Add up ``values`` over all processes, in place; the order of adding is fixed."""
        if self.world > 1:
            import torch.distributed

            here = values.to(self.device)  # GPUs talk to GPUs alone
            torch.distributed.all_reduce(here)
            if here is not values:
                values.copy_(here)
        return values

    def share(self, count: int) -> slice:
        """Return which of ``count`` things are this process's; all have as many but the last.

        Example:
            >>> [Ranks(rank, 3, None).share(7) for rank in range(3)]
            [slice(0, 3, None), slice(3, 6, None), slice(6, 7, None)]
        """
        size = -(-count // self.world)
        return slice(min(count, self.rank * size), min(count, (self.rank + 1) * size))

    def summed(self, whole: "Tensor") -> Later:
        """Start to add up ``whole`` over all processes; what comes is this one's share of it.

        The share is cut from the first axis; behind its end it is filled up with zeros to the
        length of the others. All processes have to start the same sums in the same order.
        """
        if self.world == 1:
            return lambda: whole
        import torch.distributed

        whole = self._padded(whole, -(-len(whole) // self.world) * self.world)
        share = whole.new_empty(len(whole) // self.world, *whole.shape[1:])
        work = torch.distributed.reduce_scatter_single(share, whole, async_op=True)
        return lambda: (work.wait(), share)[1]

    def gathered(self, share: "Tensor", count: int) -> Later:
        """Start to bring together the shares of all processes; what comes is all ``count``.

        All processes have to start the same in the same order.
        """
        if self.world == 1:
            return lambda: share
        import torch.distributed

        share = self._padded(share, -(-count // self.world))
        whole = share.new_empty(len(share) * self.world, *share.shape[1:])
        work = torch.distributed.all_gather_single(whole, share, async_op=True)
        return lambda: (work.wait(), whole[:count])[1]

    @staticmethod
    def _padded(values: "Tensor", count: int) -> "Tensor":
        if len(values) == count:
            return values.contiguous()
        padded = values.new_zeros(count, *values.shape[1:])
        padded[: len(values)] = values
        return padded

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other processes of this torchrun for the length of the block.

    Gloo connects CPUs, NCCL connects GPUs. Started plainly, there is nobody to join.

    Raises:
        ConfigError: No GPU of this machine is left for this process.
    """
    import torch

    rank, world = (int(os.environ.get(name, default)) for name, default in RANK)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        place, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if place >= gpus:
            raise ConfigError(
                f"gpu: process {place + 1} of this machine finds no GPU of its own: there are "
                f"{gpus}. Lower gpu in set-resources to {gpus}, or take a machine with more."
            )
        device = torch.device("cuda", place)
        torch.cuda.set_device(device)
    if world == 1:
        yield Ranks(0, 1, device)
        return
    import torch.distributed

    on_gpu = device.type == "cuda"
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo", device_id=device if on_gpu else None
    )
    try:
        yield Ranks(rank, world, device)
    finally:
        torch.distributed.destroy_process_group()


RANK = (("RANK", "0"), ("WORLD_SIZE", "1"))
"""Variables that torchrun sets, and what holds without it."""
