"""How many requests may be under way, and how long to wait: what the provider's limits ask for."""

import random
from collections import deque
from dataclasses import dataclass, field

WINDOW = 20
"""Outcomes that are looked back on."""

TELLING = 3
"""Refusals among them that mean a limit was hit; fewer may be an upstream server's own trouble."""

FORGOTTEN_S = 3600.0
"""Age from which a limit that was hit means nothing for a new run."""

FIRST_S, LONGEST_S = 0.25, 60.0
"""First and longest wait before the next attempt, where the provider names none."""


@dataclass
class Pace:
    """The number of requests that may be under way: halved at a limit, then creeping up again.

    Times are seconds since 1970, so that workers can share a pace.

    Example:
        >>> pace = Pace(most=64)
        >>> for _ in range(3): pace.refused(sent=10.0, now=10.2, wait_s=None)
        >>> pace.allowed
        32.0
        >>> for _ in range(40): pace.served()
        >>> pace.allowed
        42.0
    """

    most: int
    allowed: float = 0.0
    known: float = 0.0
    """Highest number that was still fine when a limit was hit: beyond it, up more slowly."""
    halved: float = 0.0
    """When it was last halved."""
    resume: float = 0.0
    """When requests may be sent again."""
    alone: int = 0
    """Refusals in a row while only one request may be under way."""
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def __post_init__(self) -> None:
        self.allowed = self.allowed or float(self.most)
        self.known = self.known or float(self.most)

    def load(self, shared: list[float] | None, now: float) -> None:
        """Take over what another worker found out, unless that is long ago."""
        if shared and now - max(shared[2:]) < FORGOTTEN_S:
            allowed, self.known, self.halved, self.resume = shared
            self.allowed = min(allowed, float(self.most))

    def shared(self) -> list[float]:
        """Return what other workers should know."""
        return [self.allowed, self.known, self.halved, self.resume]

    def served(self) -> None:
        """Count an answer: up by one in four answers, beyond what is known by one in `allowed`."""
        self.recent.append(False)
        self.alone = 0
        step = 0.25 if self.allowed < self.known else 1 / self.allowed
        self.allowed = min(float(self.most), self.allowed + step)

    def refused(self, *, sent: float, now: float, wait_s: float | None) -> None:
        """Count a request that a rate limit refused.

        Args:
            sent: When it was sent: what was under way at the last halving halves nothing more.
            now: The time.
            wait_s: Seconds the provider wants to be left alone.
        """
        self.recent.append(True)
        if sum(self.recent) < min(TELLING, self.allowed):
            return
        if wait_s is not None:
            self.resume = max(self.resume, now + wait_s)
        elif self.allowed == 1.0 and sent >= self.resume:  # as slow as can be, and still too fast
            self.alone += 1
            self.resume = now + backoff_s(self.alone, None)
        if sent >= self.halved:
            self.known = 0.9 * self.allowed
            self.allowed = max(1.0, self.allowed / 2)
            self.halved = now
            self.recent.clear()


def backoff_s(tries: int, wait_s: float | None) -> float:
    """Return how long to wait before the next attempt, in seconds, with jitter.

    Args:
        tries: Attempts so far.
        wait_s: What the provider asked for; None if it named nothing.
    """
    if wait_s is not None:
        return wait_s * random.uniform(1.0, 1.1)
    return min(LONGEST_S, FIRST_S * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)
