import pytest

from imprint.dice import Dice


def test_equal_names_give_equal_streams_and_others_differ() -> None:
    def stream(*name: int | str) -> list[int]:
        dice = Dice(1337, *name)
        return [dice.bits() for _ in range(5)]

    assert stream("a", 1) == stream("a", 1)
    assert (
        len({tuple(stream(*name)) for name in [("a", 1), ("a", 2), ("a",), ("a", "1"), ("a1",)]})
        == 5
    )


def test_the_generator_is_splitmix64() -> None:
    dice = Dice(0)
    dice._state = 1234567  # the published test vector of splitmix64 starts here
    assert [dice.bits() for _ in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_every_number_below_n_comes_up_about_equally_often() -> None:
    dice = Dice(1, "fair")
    counts = [0] * 6
    for _ in range(6000):
        counts[dice.below(6)] += 1
    assert min(counts) > 880
    assert max(counts) < 1120


def test_a_chance_comes_true_as_often_as_it_says() -> None:
    dice = Dice(1, "chance")
    assert 2850 < sum(dice.chance(0.3) for _ in range(10000)) < 3150
    assert not any(dice.chance(0.0) for _ in range(1000))
    assert all(dice.chance(1.0) for _ in range(1000))


def test_shuffling_and_sampling_lose_and_repeat_nothing() -> None:
    dice = Dice(1, "mix")
    items = list(range(20))
    assert sorted(dice.shuffled(items)) == items
    assert items == list(range(20))
    taken = dice.sample(items, 7)
    assert len(set(taken)) == 7
    assert set(taken) <= set(items)
    assert {dice.shuffled([1, 2])[0] for _ in range(50)} == {1, 2}


def test_impossible_choices_are_refused() -> None:
    dice = Dice(1)
    with pytest.raises(ValueError, match="no number from 0 to -1"):
        dice.below(0)
    with pytest.raises(ValueError, match="cannot take 3 of 2"):
        dice.sample([1, 2], 3)
    with pytest.raises(IndexError):
        dice.pick([])
