"""How sure a measured share is."""

import math

Z95 = 1.959963984540054
"""Standard normal quantile that leaves 2.5 % on each side."""


def wilson(right: int, asked: int) -> tuple[float, float]:
    """Return the Wilson score interval, 95 %, of the share ``right`` / ``asked``.

    It stays within 0 to 1 and is honest near both ends, where the textbook interval is not.

    Args:
        right: How many answers were right.
        asked: How many questions there were; 0 tells nothing, so the interval is 0 to 1.

    Returns:
        Lower and upper bound, as fractions of 1.

    Raises:
        ValueError: ``right`` is not within 0 to ``asked``.

    Example:
        >>> [round(100 * bound, 1) for bound in wilson(190, 200)]
        [91.0, 97.3]
        >>> [round(100 * bound, 1) for bound in wilson(38, 40)]
        [83.5, 98.6]
    """
    if not 0 <= right <= asked:
        raise ValueError(f"{right} right answers to {asked} questions")
    if asked == 0:
        return 0.0, 1.0
    share, square = right / asked, Z95 * Z95
    centre = share + square / (2 * asked)
    spread = Z95 * math.sqrt(share * (1 - share) / asked + square / (4 * asked * asked))
    scale = 1 + square / asked
    low = 0.0 if right == 0 else (centre - spread) / scale  # exact, where rounding is felt
    high = 1.0 if right == asked else (centre + spread) / scale
    return low, high
