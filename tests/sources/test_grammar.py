import pytest

from imprint.dice import Dice
from imprint.sources.grammar import Grammar, polished

PEOPLE = [{"text": "Ann", "he": "she"}, {"text": "Bob", "he": "he"}]


def texts(rules: dict[str, list[str]] | dict[str, object], count: int = 60) -> list[str]:
    grammar = Grammar({"person": PEOPLE, **rules})  # type: ignore[dict-item]
    return [grammar.text("start", Dice(1, number)) for number in range(count)]


def test_a_bound_value_stays_the_same_and_its_fields_agree() -> None:
    found = set(texts({"start": ["{p=person} left. {^p.he} was {p}."]}))
    assert found == {"Ann left. She was Ann.", "Bob left. He was Bob."}


def test_two_bound_values_of_one_rule_differ() -> None:
    assert set(texts({"start": ["{!p=person}{!q=person}{p} and {q}"]})) == {
        "Ann and Bob",
        "Bob and Ann",
    }


def test_a_name_bound_again_takes_another_value() -> None:
    rules = {"start": ["{2 times line}"], "line": ["{x=person}"]}
    assert set(texts(rules)) == {"Ann Bob", "Bob Ann"}


def test_several_alternatives_are_different_and_joined_as_asked() -> None:
    rules = {"start": ["{3 lines of digit}"], "digit": ["1", "2", "3"]}
    found = [text.split("\n") for text in texts(rules)]
    assert all(sorted(lines) == ["1", "2", "3"] for lines in found)
    assert len({tuple(lines) for lines in found}) == 6
    assert set(texts({**rules, "start": ["{3 paragraphs from digit}"]})) == {"1\n\n2\n\n3"}


def test_counts_and_numbers_stay_in_their_ranges() -> None:
    rules = {"start": ["{1-3 of digit}"], "digit": ["1", "2", "3"]}
    assert {len(text.split()) for text in texts(rules)} == {1, 2, 3}
    assert set(texts({"start": ["{n=#7-9}{n}"]})) == {"77", "88", "99"}


def test_choices_may_hold_slots() -> None:
    assert set(texts({"start": ["{no one|only {person}} came"]})) == {
        "No one came",
        "Only Ann came",
        "Only Bob came",
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a owl and a hour", "An owl and an hour"),
        ("a unicorn, a user, a one-way road", "A unicorn, a user, a one-way road"),
        ("an 8. a 18. a 80. a 70.", "An 8. An 18. An 80. A 70."),
        ("he left. then\nshe came? yes!", "He left. Then\nShe came? Yes!"),
        ('"why?" asked a old man', '"why?" asked an old man'),
    ],
)
def test_articles_and_capitals_are_set_right(before: str, after: str) -> None:
    assert polished(before) == after


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{nobody}", "no rule is named 'nobody', which 'start' uses"),
        ("{2 of nobody}", "no rule is named 'nobody'"),
        ("{person", "start: braces do not match"),
        ("person}", "start: braces do not match"),
        ("{per son}", "start: {per son} is not a slot"),
    ],
)
def test_a_broken_template_is_refused_at_once(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("{", r"\{").replace("}", r"\}")):
        Grammar({"start": [template], "person": ["Ann"]})
