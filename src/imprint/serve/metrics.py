"""What Prometheus is told, and the tests and the benchmark look at."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The counters of one server."""

    def __init__(self, *, live: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Begin at zero; ``live`` and ``waiting`` tell how many answers are, right now."""
        self.registry = here = CollectorRegistry()
        self.requests = Counter(
            "imprint_requests", "Requests, by path and status.", ["path", "status"], registry=here
        )
        self.hung_up = Counter("imprint_hung_up", "Clients gone before the end.", registry=here)
        self.tokens_in = Counter("imprint_tokens_in", "Tokens of prompts.", registry=here)
        self.tokens_out = Counter("imprint_tokens_out", "Tokens of answers.", registry=here)
        self.first_token = Histogram(
            "imprint_first_token_seconds",
            "From the arrival of a request to its first token.",
            buckets=SECONDS,
            registry=here,
        )
        rows = Gauge("imprint_live", "Answers being written.", registry=here)
        rows.set_function(live)
        queue = Gauge("imprint_waiting", "Answers waiting for a row.", registry=here)
        queue.set_function(waiting)

    def text(self) -> bytes:
        """Return all of them in Prometheus's format."""
        return generate_latest(self.registry)
