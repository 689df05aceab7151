"""How many threads take a step: one or all, whichever was faster lately.

Two threads take half the time of one where they have two cores, and up to twice as long where other
work wants one of them; that changes by the second, so no rule made beforehand is right. What a step
calculates does not depend on it (see ``inference.py``).
"""

TRIAL = 4
"""Steps after which two ways are compared: one could have been disturbed."""
PATIENCE = 40
"""Times as long as a trial took until the next: it may cost a fortieth of the time."""
REST_S = 1.0
"""Seconds until then at least: of short steps, trials took a thirtieth of the time."""


class Pace:
    """The choice for steps that have about as much to do."""

    def __init__(self, *, many: bool) -> None:
        """Begin with all threads or with one; soon the other is tried."""
        self.many = many
        """Whether the next step should take all threads."""
        self._steps: list[float] = []
        self._usual: float | None = None
        self._wait: float | None = None

    def took(self, seconds: float) -> None:
        """Take note of a step."""
        self._steps.append(seconds)
        if len(self._steps) < TRIAL:
            return
        spent, usual = sum(self._steps), sum(sorted(self._steps)[1:-1])  # not what was disturbed
        self._steps.clear()
        if self._wait is None:  # the first steps are slow, whichever way they are taken
            self._wait = 0.0
        elif self._usual is None:
            self._wait -= spent
            if self._wait <= 0:
                self._usual, self.many = usual, not self.many
        else:
            if usual >= self._usual:
                self.many = not self.many
            self._usual, self._wait = None, max(PATIENCE * spent, REST_S)
