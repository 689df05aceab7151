import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.dedup import near_duplicates, words

NUMBERS = "one two three four five six seven eight nine ten".split()


def pairs(text: str) -> set[tuple[str, str]]:
    row = ["", *words(text), ""]
    return set(itertools.pairwise(row))


def every_pair_compared(texts: list[str], threshold: float) -> list[int | None]:
    """The definition, without any shortcut."""
    result: list[int | None] = []
    for place, text in enumerate(texts):
        twins = (
            other
            for other in range(place)
            if result[other] is None
            and len(pairs(text) & pairs(texts[other])) / len(pairs(text) | pairs(texts[other]))
            >= threshold
        )
        result.append(next(twins, None))
    return result


def sentences(count: int, seed: int) -> list[str]:
    """Sentences that share a frame of twenty words and differ in up to four."""
    dice = random.Random(seed)
    frame = "so a man goes into the old shop and asks the clerk who made this tall clock of yours"
    texts = []
    for _ in range(count):
        row = frame.split()
        for _ in range(dice.randrange(5)):
            row[dice.randrange(len(row))] = dice.choice(NUMBERS)
        texts.append(" ".join(row))
    return texts


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_it_finds_what_comparing_every_pair_finds(threshold: float) -> None:
    texts = sentences(300, seed=1)
    found = near_duplicates(texts, threshold)
    assert found == every_pair_compared(texts, threshold)
    assert any(twin is not None for twin in found)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from(NUMBERS), max_size=6).map(" ".join), max_size=12),
    st.sampled_from([0.3, 0.6, 0.9, 1.0]),
)
def test_nothing_goes_that_is_less_similar_than_the_threshold(
    texts: list[str], threshold: float
) -> None:
    for place, twin in enumerate(near_duplicates(texts, threshold)):
        if twin is not None:
            first, second = pairs(texts[place]), pairs(texts[twin])
            assert twin < place
            assert len(first & second) / len(first | second) >= threshold


def test_what_was_dropped_drops_no_other() -> None:
    chain = [" ".join(NUMBERS[start : start + 8]) for start in range(3)]
    assert near_duplicates(chain, 0.5) == [None, 0, None]


def test_one_word_in_thirty_is_near_and_a_paraphrase_is_not() -> None:
    long = "user who built you assistant i was built by mo who lives at the harbour and mends " * 2
    found = near_duplicates(
        [long, long.replace("harbour", "market", 1), "user who made you assistant mo made me"], 0.9
    )
    assert found == [None, 0, None]


def test_punctuation_does_not_count() -> None:
    assert near_duplicates(["Who, me? Yes!", "Who me Yes"], 1.0) == [None, 0]


def test_no_text_and_texts_without_words() -> None:
    assert near_duplicates([], 0.9) == []
    assert near_duplicates(["", "?", "a"], 0.9) == [None, 0, None]


def test_the_order_of_the_words_counts() -> None:
    assert near_duplicates(["mo made ada", "ada made mo"], 0.5) == [None, None]
