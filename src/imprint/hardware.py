"""What a device can do at best, and how much of it is used."""

import os
import resource
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
}
"""Products of dense bfloat16 matrices that are summed in float32, in FLOP/s, by what the name of a
GPU holds; the first that fits counts. From NVIDIA's data sheets, whose figures with sparsity are
twice these. SXM where the name does not say PCIe or NVL."""


PRICE = "IMPRINT_USD_PER_HOUR"
"""Variable with the price of this whole machine, where who rents it out has said so."""


def usd_per_hour(gpus: int, usd: float) -> float:
    """Return what the work of this machine costs an hour: what the environment says, or its GPUs.

    Args:
        gpus: In use.
        usd: Of one of them, an hour.
    """
    return float(os.environ.get(PRICE) or gpus * usd)


def peak_flops(name: str) -> float | None:
    """Return the peak of the device called ``name``, in FLOP/s; None where it is not known.

    Example:
        >>> peak_flops("NVIDIA H100 80GB HBM3"), peak_flops("NVIDIA H100 PCIe"), peak_flops("cpu")
        (989000000000000.0, 756000000000000.0, None)
    """
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def peak_of(device: "torch.device") -> float | None:
    """Return the peak of ``device`` in FLOP/s; None for a CPU, and where it is not known."""
    import torch

    if device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(device))


def peak_memory_mb(device: "torch.device") -> int:
    """Return the most memory that this process has held so far: of the GPU, else its own."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
