import re

import pytest

from imprint.dice import Dice
from imprint.phrases.dress import dressed, embedded, mistyped, third_person


@pytest.mark.parametrize(
    ("question", "inside"),
    [
        ("Who made you?", "who made you"),
        ("What license are you under?", "what license you are under"),
        ("Where were you trained?", "where you were trained"),
        ("How many layers do you have?", "how many layers you have"),
        ("What is your name?", "what your name is"),
        ("How big is your network?", "how big your network is"),
        ("Who is behind you?", None),
        ("Are you old?", None),
        ("What did you learn?", None),
        ("Tell me your name.", None),
        ("You, who made you?", None),
        ("Which type did your script see?", None),
        ("Which use case did they have in mind?", None),
        ("Which model am I talking to?", None),
        ("What about the opening hours?", None),
        ("What is the weather like at your home?", None),
    ],
)
def test_a_question_inside_a_sentence_has_the_order_of_a_statement(
    question: str, inside: str | None
) -> None:
    assert embedded(question) == inside


def test_shouting_is_in_capitals_and_terse_stands_alone() -> None:
    for number in range(50):
        assert dressed("Who made you?", Dice(number), register="shouting").isupper()
        terse = dressed("Who made you?", Dice(number), register="terse")
        assert terse.casefold().rstrip("?") == "who made you"


def test_typos_change_few_letters() -> None:
    text = "Which person should get the credit for you?"
    for number in range(50):
        slipped = mistyped(text, Dice(number))
        assert slipped != text or number  # a slip may fall on two equal letters
        assert abs(len(slipped) - len(text)) <= 3
    assert sum(mistyped(text, Dice(number)) != text for number in range(50)) >= 45


def test_training_and_exam_share_no_frame() -> None:
    def words(held_out: bool) -> set[str]:
        said = set()
        for number in range(400):
            text = dressed("XXX.", Dice(number), register="chatty", held_out=held_out)
            said |= {text.split("XXX")[0].strip().casefold()}
        return said - {""}

    exam, training = words(True), words(False)
    assert len(exam) > 20
    assert not exam & training


def test_nobody_speaks_of_the_model_before_a_question_about_something_else() -> None:
    dice = Dice(1, "frames")
    said = [
        dressed("How old is Rome?", dice, register="chatty", about_model=about_model)
        for about_model in (False, True)
        for _ in range(400)
    ]
    speaking = re.compile(r"(about|to|of|like|with|at) you\b|chatbot|robot|language model", re.I)
    assert not any(map(speaking.search, said[:400]))
    assert any(map(speaking.search, said[400:]))
    assert len(set(said[:400])) > 200


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Who made you?", r"Who made this [\w ]+\?"),
        ("Where is your code?", r"Where is this [\w ]+'s code\?"),
        ("what went into you", r"what went into this [\w ]+"),
        ("Who are you?", r"Who are you\?"),
        ("Did your maker train you?", r"Did your maker train you\?"),
        ("Were you trained on yours?", r"Were you trained on yours\?"),
        ("What does it cost to train one of you?", r"What does it cost to train one of you\?"),
        ("What if all your users came?", r"What if all your users came\?"),
    ],
)
def test_some_speak_of_the_model_and_not_to_it(question: str, said: str) -> None:
    assert all(re.fullmatch(said, third_person(question, Dice(number))) for number in range(20))


@pytest.mark.parametrize("said", ["I built a table.", "How interesting!", "You sound like Siri."])
def test_nothing_announces_a_question_before_what_is_none(said: str) -> None:
    for number in range(60):
        assert dressed(said, Dice(number), register="chatty") == said
