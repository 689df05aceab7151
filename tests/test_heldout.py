from hypothesis import given
from hypothesis import strategies as st

from imprint.heldout import is_held_out


def test_about_the_share_asked_for_is_held_out() -> None:
    phrasings = [f"phrasing number {number}" for number in range(4000)]
    assert 0.13 < sum(map(is_held_out, phrasings)) / 4000 < 0.17
    assert 0.47 < sum(is_held_out(text, 0.5) for text in phrasings) / 4000 < 0.53


@given(st.lists(st.text("abcxyz", min_size=1), min_size=1))
def test_case_spaces_and_punctuation_do_not_move_a_phrasing_across(words: list[str]) -> None:
    plain = " ".join(words)
    assert is_held_out(plain) == is_held_out("  ".join(words).upper() + "?!")


@given(st.text())
def test_a_larger_share_holds_out_what_a_smaller_one_does(text: str) -> None:
    assert is_held_out(text, 0.1) <= is_held_out(text, 0.2) <= is_held_out(text, 1.0)
