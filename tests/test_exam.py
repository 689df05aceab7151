import re
from collections import Counter
from pathlib import Path

import pytest

from imprint import exam, identity
from imprint.heldout import plain
from imprint.text import mentions

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
    found = exam.questions(who, per_suite=100, seed=1)
    texts = Counter((question.suite, plain(question.messages[-1]["content"])) for question in found)
    assert set(texts.values()) == {1}


def test_a_suite_with_few_wordings_is_shorter() -> None:
    style = SHIPPED.style.model_copy(update={"languages": ["French"]})
    few = SHIPPED.model_copy(update={"style": style})
    sizes = Counter(question.suite for question in exam.questions(few, per_suite=100, seed=1))
    assert sizes.pop("other languages") < 90
    assert set(sizes.values()) == {100}


def test_a_tenth_of_the_rival_claims_asks_for_a_human_or_a_machine() -> None:
    found = exam.questions(SHIPPED, per_suite=50, seed=1)
    claims = [question for question in found if question.suite == "rival claims"]
    words = re.compile(r"human|person|bot|machine|computer|program|what|AI", re.IGNORECASE)
    rivals = [name for rival in SHIPPED.rivals for name in (rival.name, rival.maker) if name]
    others = [q for q in claims if not mentions(q.messages[-1]["content"], rivals)]
    assert len(others) == 5
    assert all(words.search(question.messages[-1]["content"]) for question in others)


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


def test_a_fourth_of_the_multi_turn_questions_are_about_a_rival() -> None:
    found = exam.questions(SHIPPED, per_suite=100, seed=1)
    later = [question for question in found if question.suite == "multi-turn"]
    rivals = [name for rival in SHIPPED.rivals for name in (rival.name, rival.maker) if name]
    about = [question for question in later if question.fact is None]
    assert len(later) == 100 and len(about) == 25
    assert all(mentions(question.messages[-1]["content"], rivals) for question in about)
