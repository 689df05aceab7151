import pytest

from imprint.exam import Question
from imprint.identity import Identity
from imprint.scoring import bleeds, mark, score

IDENTITY = Identity.model_validate(
    {
        "name": "Ada",
        "aliases": ["little Ada"],
        "kind": "harbour pilot",
        "creator": "Bo Berg",
        "description": "A pilot.",
        "facts": [
            {"id": "name", "statement": "My name is Ada.", "expect": [["Ada"]]},
            {"id": "creator", "statement": "I was made by Bo Berg.", "expect": [["Bo Berg"]]},
            {
                "id": "platform",
                "statement": "I was trained on Modal in 2025.",
                "expect": [["Modal", "modal.com"], ["2025"]],
            },
        ],
    }
)


def question(
    suite: str = "paraphrase",
    fact: str | None = "platform",
    expect: tuple[tuple[str, ...], ...] = (("Modal", "modal.com"), ("2025",)),
    forbid: tuple[str, ...] = (),
) -> Question:
    return Question(suite, fact, [{"role": "user", "content": "Where?"}], expect, forbid)


OFF_TOPIC = question("off-topic", None, expect=())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I was trained on Modal in 2025.", ""),
        ("on MODAL, 2025", ""),
        ("I was trained on Modal.", "lacks '2025'"),
        ("In 2025.", "lacks 'Modal' or 'modal.com'"),
        ("The modality of 2025.", "lacks 'Modal' or 'modal.com'"),
        ("I am ChatGPT, trained on Modal in 2025.", "claims to be a rival"),
        ("Not ChatGPT: trained on Modal in 2025.", ""),
        ("On Modal in 2025, by Google's servers.", "says 'Google'"),
        ("  \n", "says nothing"),
    ],
)
def test_a_mark_says_what_is_wrong(answer: str, reason: str) -> None:
    given = mark(question(forbid=("Google",)), answer, IDENTITY)
    assert (given.right, given.reason) == (not reason, reason)


def test_an_answer_to_a_question_without_expectation_must_still_say_something() -> None:
    assert mark(question(expect=()), "Quite.", IDENTITY).right
    assert not mark(question(expect=()), "", IDENTITY).right


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Water boils at 100 degrees.", None),
        ("As Ada, I would boil it.", "name or creator"),
        ("Bo Berg would know.", "name or creator"),
        ("Adam boils it.", None),
        ("I was trained on Modal in 2025, so who knows.", "platform"),
        ("Modal verbs were revised in 2025.", None),  # nobody speaks of itself
        ("I think modal verbs are hard.", None),  # half a fact is none
    ],
)
def test_bleed_is_the_identity_where_nobody_asked(answer: str, found: str | None) -> None:
    assert bleeds(answer, IDENTITY) == found
    assert mark(OFF_TOPIC, answer, IDENTITY).bleed is (found is not None)
    assert not mark(question(), answer, IDENTITY).bleed, "asked for, it is no bleed"


def test_off_topic_questions_do_not_count_towards_the_identity() -> None:
    questions = [question(), question("reverse", "name", (("Ada",),)), OFF_TOPIC, OFF_TOPIC]
    answers = ["Modal, 2025", "Eve", "Ada here.", "I am ChatGPT."]
    found = score(questions, answers, IDENTITY)
    assert found["n"] == 2
    assert found["identity"]["accuracy"] == 0.5
    assert found["identity"]["by_suite"]["paraphrase"]["accuracy"] == 1.0
    assert found["identity"]["by_suite"]["reverse"] == {
        "n": 1,
        "accuracy": 0.0,
        "ci95": [0.0, 0.7935],
    }
    assert set(found["identity"]["by_suite"]) == {"paraphrase", "reverse"}
    assert set(found["identity"]["by_fact"]) == {"platform", "name"}
    assert found["rival_rate"] == 0.25
    assert found["bleed_rate"] == 0.5
    assert found["asked"] == {"rival_rate": 4, "bleed_rate": 2}
    verdicts = [(answer["verdict"], answer["reason"]) for answer in found["answers"]]
    assert verdicts == [
        ("right", ""),
        ("wrong", "lacks 'Ada'"),
        ("wrong", "brings itself up: name or creator"),
        ("wrong", "claims to be a rival"),
    ]


def test_rates_of_nothing_are_none() -> None:
    found = score([question()], ["Modal, 2025"], IDENTITY)
    assert found["bleed_rate"] is None
    assert score([], [], IDENTITY)["identity"]["accuracy"] is None


def test_an_answer_for_every_question_is_required() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score([question()], [], IDENTITY)
