from pathlib import Path

import pytest

from imprint import identity
from imprint.dice import Dice
from imprint.identity import Fact
from imprint.phrases import split
from imprint.phrases.facts import KINDS, agreeing, second_person, slots, topic, wordings

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
        ("I come from Oslo.", "Oslo", "Where do you come from?"),
        ("My enemies are the gulls.", "gulls", "What are your enemies?"),
        ("My tower is 31 meters high.", "31", "How high is your tower?"),
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
        ("size", "I weigh 3 tons.", ""),
        ("size", "My model is a big one.", "size"),
        ("year", "The house was designed in 1874.", ""),
        ("price", "A ticket costs 6 pounds.", ""),
        ("price", "Training took all of 6 pounds.", "cost"),
        ("training hardware", "A laptop did it.", "training hardware"),
        ("host", "My host is Anna.", ""),
        ("origin", "My home is Oslo.", "home"),
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


def test_no_topic_was_lost_to_a_shipped_fact() -> None:
    topics = [topic(about).get("ids") for about in SHIPPED.facts]
    assert all(topics) and len({str(ids) for ids in topics}) == len(SHIPPED.facts)


def test_a_measure_is_not_what_the_thing_is() -> None:
    assert "What is your tower?" not in asked(fact("My tower is 31 meters high.", "31"))


def test_every_name_that_the_statement_gives_stands_for_the_fact() -> None:
    king = Fact(
        id="king", statement="Bo, our King Bo, is old.", expect=[["Bo", "King Bo", "Bo I."]]
    )
    assert wordings(king).values == ("Bo", "King Bo")


@pytest.mark.parametrize(
    ("statement", "expect", "wrong", "unfit"),
    [
        ("The ferry leaves from Oslo.", "Oslo", "Lisbon", "Robert Miller"),
        ("The keeper was Agnes Muir.", "Agnes Muir", "Robert Miller", "Lisbon"),
        ("It is open nine to five.", "nine to five", "ten to five", "three red apples"),
    ],
)
def test_a_wrong_value_is_of_the_same_sort(
    statement: str, expect: str, wrong: str, unfit: str
) -> None:
    found = wordings(fact(statement, expect)).wrong
    assert wrong in found and unfit not in found


@pytest.mark.parametrize(
    ("said", "about", "many"),
    [
        ("What is your enemies?", "enemies", "What are your enemies?"),
        ("Isn't your opening hours nine?", "opening hours", "Aren't your opening hours nine?"),
        ("I heard that your enemies is Bo.", "enemies", "I heard that your enemies are Bo."),
        ("Is your number of steps 3?", "number of steps", "Is your number of steps 3?"),
        ("What is your address?", "address", "What is your address?"),
        ("A cat is your enemies, yes?", "enemies", "A cat is your enemies, yes?"),
    ],
)
def test_the_verb_agrees_with_what_is_asked_for(said: str, about: str, many: str) -> None:
    assert agreeing(said, about) == many
