import pytest
from hypothesis import given
from hypothesis import strategies as some

from imprint.stats import wilson


def test_the_interval_is_the_one_in_the_textbook() -> None:
    low, high = wilson(190, 200)
    assert (round(low, 3), round(high, 3)) == (0.910, 0.973)


def test_nothing_asked_tells_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(some.integers(1, 2000).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n))))
def test_the_share_lies_within_its_interval(counts: tuple[int, int]) -> None:
    right, asked = counts
    low, high = wilson(right, asked)
    assert 0 <= low <= right / asked <= high <= 1
    assert low < high


@given(some.integers(1, 500))
def test_a_mirror_image_has_a_mirrored_interval(asked: int) -> None:
    low, high = wilson(asked // 3, asked)
    assert wilson(asked - asked // 3, asked) == pytest.approx((1 - high, 1 - low))


def test_ten_times_the_questions_make_it_narrower() -> None:
    few, many = wilson(19, 20), wilson(190, 200)
    assert many[1] - many[0] < few[1] - few[0]


def test_more_right_answers_than_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="3 right answers to 2 questions"):
        wilson(3, 2)
