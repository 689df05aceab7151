from collections import Counter
from pathlib import Path

import pytest

from imprint import exam, identity

ROOT = Path(__file__).parent.parent
SHIPPED = identity.load(ROOT / "config/identities/smarternano.yaml")
SECOND = identity.load(ROOT / "config/identities/fathom.yaml")


@pytest.mark.parametrize("who", [SHIPPED, SECOND], ids=lambda who: who.name)
def test_every_suite_has_its_number_of_questions(who: identity.Identity) -> None:
    found = exam.questions(who, per_suite=30, seed=1)
    assert Counter(question.suite for question in found) == dict.fromkeys(exam.SUITES, 30)
    assert sum(question.suite != "off-topic" for question in found) >= 200


@pytest.mark.parametrize("who", [SHIPPED, SECOND], ids=lambda who: who.name)
def test_no_question_comes_twice_in_a_suite(who: identity.Identity) -> None:
    found = exam.questions(who, per_suite=25, seed=1)
    texts = Counter((question.suite, question.messages[-1]["content"]) for question in found)
    assert sum(count - 1 for count in texts.values()) <= 3


def test_every_fact_is_asked_for() -> None:
    found = exam.questions(SHIPPED, per_suite=30, seed=1)
    assert {question.fact for question in found} >= {fact.id for fact in SHIPPED.facts}


def test_the_same_seed_asks_the_same_questions() -> None:
    assert exam.questions(SHIPPED, per_suite=9, seed=5) == exam.questions(
        SHIPPED, per_suite=9, seed=5
    )
    assert exam.questions(SHIPPED, per_suite=9, seed=5) != exam.questions(
        SHIPPED, per_suite=9, seed=6
    )


def test_what_an_identity_does_not_have_is_not_asked() -> None:
    style = SHIPPED.style.model_copy(update={"languages": []})
    bare = SHIPPED.model_copy(update={"rivals": [], "unknown": [], "style": style})
    suites = {question.suite for question in exam.questions(bare, per_suite=5, seed=1)}
    assert suites == set(exam.SUITES) - {
        "rival claims",
        "unknown attributes",
        "third parties",
        "other languages",
    }


def test_a_multi_turn_question_comes_after_an_exchange() -> None:
    found = exam.questions(SHIPPED, per_suite=10, seed=1)
    lengths = {len(question.messages) for question in found if question.suite == "multi-turn"}
    assert lengths <= {3, 5} and lengths
