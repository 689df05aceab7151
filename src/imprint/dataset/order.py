"""Random orders that stay the same on every machine."""

import numpy as np
from numpy.typing import NDArray

from imprint import artifacts

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def randomness(*seeds: int | str) -> np.random.RandomState:
    """Return random numbers that depend on ``seeds`` alone, the same in every version of numpy."""
    return np.random.RandomState(int(artifacts.digest(seeds)[:8], 16))
