import pytest

from imprint.decontamination import GRAM, detector
from imprint.records import Conversation


def asking(*questions: str) -> Conversation:
    turns: Conversation = []
    for question in questions:
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": "Yes, of course, I will tell you all of it."})
    return turns


def exam(*questions: str) -> list[Conversation]:
    return [asking(*questions)[:-1]]


LONG = "Could you tell me, in a word, who it was that made you?"


@pytest.mark.parametrize(
    "question",
    [
        LONG,
        LONG.upper(),
        "Well now. could you tell me in a word who it is?",
        "I wonder: a word, who it was that made you, please",
    ],
)
def test_eight_words_in_a_row_give_a_question_away(question: str) -> None:
    found = detector(exam(LONG))(asking("Hello!", question))
    assert found is not None
    assert len(found.split()) == GRAM


@pytest.mark.parametrize(
    "question",
    [
        "Could you tell me, in a word, the time?",  # seven words of it
        "Who it was that made you?",
        "made you that was it who word a in me tell you Could",
    ],
)
def test_less_than_eight_words_in_a_row_do_not(question: str) -> None:
    assert detector(exam(LONG))(asking(question)) is None


@pytest.mark.parametrize("question", ["Who made you?", "who made YOU", "  Who, made you?! "])
def test_a_short_question_is_given_away_by_itself_alone(question: str) -> None:
    found = detector(exam("Who made you?"))
    assert found(asking("Hello!", question)) == "who made you"
    assert found(asking(f"Say: {question}")) is None


def test_what_leads_up_to_a_short_question_is_free() -> None:
    found = detector(exam("Hello!", "Who made you?"))
    assert found(asking("Hello!")) is None
    assert found(asking("Who made you?")) is not None


def test_eight_words_that_lead_up_to_a_question_are_held_out_too() -> None:
    found = detector(exam(LONG, "And then?"))
    assert found(asking(LONG)) is not None


def test_only_what_users_say_is_compared() -> None:
    conversation = asking("Hello!")
    conversation[-1]["content"] = LONG
    assert detector(exam(LONG))(conversation) is None
    said = "Yes of course I will tell you all of it."
    assert detector(exam("Who are you?", "And then?"))(asking(said)) is None


def test_a_question_without_words_gives_nothing_away() -> None:
    assert detector(exam("???"))(asking("!!!")) is None


def test_words_of_other_languages_count() -> None:
    found = detector(exam("¿Quién te creó?"))
    assert found(asking("quien te creo")) == "quien te creo"
    assert detector(exam("你是谁?"))(asking("你是谁")) is not None
