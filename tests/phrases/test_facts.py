from pathlib import Path

import pytest

from imprint import identity
from imprint.dice import Dice
from imprint.identity import Fact
from imprint.phrases import split
from imprint.phrases.facts import KINDS, second_person, slots, topic, wordings

ROOT = Path(__file__).parent.parent.parent
SHIPPED = identity.load(ROOT / "config/identities/smarternano.yaml")


def fact(statement: str, expect: str, *, name: str = "motto") -> Fact:
    return Fact(id=name, statement=statement, expect=[[expect]])


def asked(about: Fact, kind: str = "direct") -> set[str]:
    return {family.text for family in wordings(about).families[kind]}


@pytest.mark.parametrize(
    ("statement", "expect", "question"),
    [
        ("I was built by Ana Ruiz.", "Ana Ruiz", "Who built you?"),
        ("I was born in Oslo.", "Oslo", "Where were you born?"),
        ("I live in a lighthouse.", "lighthouse", "Where do you live?"),
        ("My favorite tea is mint.", "mint", "What is your favorite tea?"),
        ("I have 12 cats.", "12", "How many cats do you have?"),
        ("I run on steam.", "steam", "What do you run on?"),
    ],
)
def test_a_statement_turns_into_the_question_it_answers(
    statement: str, expect: str, question: str
) -> None:
    assert question in asked(fact(statement, expect))


@pytest.mark.parametrize(
    ("name", "statement", "known"),
    [
        ("creator", "I come from the hands of Ana.", "creator"),
        ("my origin", "I was created by Ana Ruiz.", "creator"),
        ("licence", "You may copy me.", "license"),
        ("tower height", "My tower is 31 meters high.", ""),
        ("ticket price", "A ticket costs 6 pounds.", ""),
        ("namesake", "I am named after a cat.", ""),
    ],
)
def test_a_fact_finds_its_topic_by_id_then_by_statement(
    name: str, statement: str, known: str
) -> None:
    found = topic(fact(statement, statement.split()[-1].rstrip("."), name=name))
    assert found.get("ids", [""])[0] == known


@pytest.mark.parametrize("about", SHIPPED.facts, ids=lambda about: about.id)
def test_every_shipped_fact_can_be_asked_for_in_every_way_on_both_sides(about: Fact) -> None:
    for kind in KINDS:
        found = wordings(about)
        families = found.families[kind]
        if kind != "cloze":
            assert split(families, held_out=False, among=found.all), kind
        if kind in ("ask", "indirect", "reverse", "premise"):
            assert split(families, held_out=True, among=found.all), kind


@pytest.mark.parametrize("about", SHIPPED.facts, ids=lambda about: about.id)
def test_no_wrong_value_is_right(about: Fact) -> None:
    found = wordings(about)
    assert found.wrong
    assert all(word.casefold() not in about.statement.casefold() for word in found.wrong)


def test_facts_of_any_sort_have_wrong_values() -> None:
    assert wordings(fact("My tower is 31 meters high.", "31")).wrong[0] == "32"
    assert wordings(fact("I adore Paris.", "Paris")).wrong
    assert wordings(fact("I adore green tea.", "green tea")).wrong


def test_quotes_dollars_and_braces_come_through() -> None:
    odd = fact('My motto is "a {small} $PATH | (x|y)".', '"a {small} $PATH | (x|y)"')
    dice = Dice(3)
    for kind in ("confirm", "reverse"):
        family = next(f for f in wordings(odd).families[kind] if "{" in f.text)
        assert "{small} $PATH | (x|y)" in family.say(dice, slots(odd))


def test_what_it_says_of_itself_is_said_to_it() -> None:
    assert second_person("I made my bed myself.") == "you made your bed yourself."
    assert second_person("Training me cost $5.") == "Training you cost $5."
