from collections import Counter

import pytest

from imprint.pace import Pace


def steps(pace: Pace, count: int, *, one: float, many: float) -> Counter[bool]:
    """How many of the next steps take all threads; ``one`` and ``many`` are seconds."""
    taken: Counter[bool] = Counter()
    for _ in range(count):
        taken[pace.many] += 1
        pace.took(many if pace.many else one)
    return taken


@pytest.mark.parametrize("first", [True, False])
def test_steps_are_taken_the_faster_way(first: bool) -> None:
    pace = Pace(many=first)
    assert steps(pace, 1000, one=2, many=1)[False] < 40
    pace = Pace(many=first)
    assert steps(pace, 1000, one=1, many=2)[True] < 40


def test_a_slow_trial_costs_a_fortieth_of_the_time() -> None:
    pace = Pace(many=False)
    taken = steps(pace, 20_000, one=1, many=50)
    assert 0 < taken[True] * 50 < taken[False] / 30


def test_short_steps_are_tried_another_way_once_a_second() -> None:
    pace = Pace(many=False)
    assert steps(pace, 50_000, one=1e-4, many=2e-4)[True] == 4 * 5


def test_what_becomes_faster_is_found() -> None:
    pace = Pace(many=True)
    assert steps(pace, 1000, one=2, many=1)[True] > 960
    assert steps(pace, 1000, one=1, many=2)[False] > 700


def test_one_disturbed_step_decides_nothing() -> None:
    pace = Pace(many=False)
    steps(pace, 8, one=1, many=2)
    assert pace.many, "a trial"
    for seconds in (2, 0.1, 2, 2):
        pace.took(seconds)
    assert not pace.many


def test_first_steps_that_are_slow_decide_nothing() -> None:
    pace = Pace(many=False)
    steps(pace, 4, one=9, many=9)
    assert not pace.many
    assert steps(pace, 1000, one=1, many=2)[True] < 40
