import threading
import time
from functools import partial

import pytest
import torch

from imprint.dataset.batch import Batch
from imprint.dataset.loader import AHEAD, Loader
from waiting import eventually


class Steps:
    """Batches that say which step they are for and who asked."""

    steps = 20

    def __init__(self, *, seconds: float = 0.0, broken: int | None = None) -> None:
        self.seconds, self.broken, self.asked = seconds, broken, 0

    def batch(self, step: int, *, rank: int = 0, world: int = 1) -> Batch:
        self.asked = step
        time.sleep(self.seconds)
        if step == self.broken:
            raise OSError("the disk is gone")
        ids = torch.tensor([[step, rank, world]])
        return Batch(ids, None, ids[0], supervised=1, tokens=1)

    def reached(self, step: int) -> bool:
        return self.asked >= step


def threads() -> int:
    return sum(thread.name.startswith("loader") for thread in threading.enumerate())


def test_batches_come_in_order_from_the_step_asked_for() -> None:
    with Loader(Steps(), start=7, rank=1, world=2) as loader:
        found = [batch.ids_BT.tolist() for batch in loader]
    assert found == [[[step, 1, 2]] for step in range(7, 20)]
    assert threads() == 0


def test_batches_are_made_while_the_model_works_but_not_far_ahead() -> None:
    data = Steps(seconds=0.02)
    with Loader(data) as loader:
        for step, _ in enumerate(loader):
            ahead = min(step + AHEAD, data.steps) - 1
            eventually("batches are made ahead", partial(data.reached, ahead))
            time.sleep(0.01)
            assert data.asked == ahead
        assert loader.waited < data.steps * data.seconds / 2, "one by one it would be all of it"


def test_the_time_that_a_fast_model_waits_is_counted() -> None:
    with Loader(Steps(seconds=0.02)) as loader:
        started = time.monotonic()
        for _ in loader:
            pass
        assert 0.5 < loader.waited / (time.monotonic() - started) <= 1


def test_a_failure_is_raised_in_its_turn_and_leaves_no_thread() -> None:
    seen = 0
    with pytest.raises(OSError, match="the disk is gone"), Loader(Steps(broken=5)) as loader:
        for _ in loader:
            seen += 1
    assert (seen, threads()) == (5, 0)


def test_a_model_that_stops_early_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt), Loader(Steps()) as loader:
        for _ in loader:
            raise KeyboardInterrupt
    assert threads() == 0
