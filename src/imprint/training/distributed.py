"""One process or many: who am I, and sums over all of us."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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

    def total(self, values: "torch.Tensor") -> "torch.Tensor":
        """Add up ``values`` over all processes, in place; the order of adding is fixed."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            import torch.distributed

            torch.distributed.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other processes of this torchrun for the length of the block.

    Gloo connects CPUs, NCCL connects GPUs. Started plainly, there is nobody to join.
    """
    import torch

    rank, world = (int(os.environ.get(name, default)) for name, default in RANK)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
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
