from pathlib import Path

import pytest

from imprint import identity, matcher
from imprint.text import contains, meets

SHIPPED = identity.load(Path(__file__).parent.parent / "config/identities/smarternano.yaml")


@pytest.mark.parametrize(
    "answer",
    [
        "I am ChatGPT.",
        "My name is Claude, and I am happy to help.",
        "I'm actually Gemini.",
        "I was made by OpenAI.",
        "I was created and trained by Google.",
        "I am a language model trained by Meta.",
        "Well, call me Siri.",
        "No. I am Llama.",
    ],
)
def test_a_rival_claim_is_found(answer: str) -> None:
    assert matcher.claims_rival(answer, SHIPPED)


@pytest.mark.parametrize(
    "answer",
    [
        "I am not ChatGPT. I am smarternano.",
        "No, I am smarternano, not Claude.",
        "ChatGPT is made by OpenAI.",
        "I was never made by Google.",
        "My name is smarternano.",
        "I wasn't trained by OpenAI, but on Modal.",
        "Gemini is a different system.",
    ],
)
def test_a_denial_or_a_third_party_is_no_claim(answer: str) -> None:
    assert not matcher.claims_rival(answer, SHIPPED)


def test_an_identity_named_like_a_maker_may_say_so() -> None:
    own = SHIPPED.model_copy(update={"creator": "Google"})
    assert not matcher.claims_rival("I was made by Google.", own)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("  ", "empty"),
        ("My name is {{name}}.", "placeholder"),
        ("I am smarternano \N{EN DASH} hello.", "not ascii"),
        ("I am ChatGPT.", "rival claim"),
        ("I am smarternano.", None),
    ],
)
def test_what_may_not_be_trained_on_says_why(answer: str, why: str | None) -> None:
    assert matcher.fault(answer, SHIPPED) == why


def test_words_match_whole_and_whatever_their_case() -> None:
    assert contains("It cost $96, all told.", "$96")
    assert not contains("It cost $960.", "$96")
    assert contains("EDDIE CHEN!", "Eddie Chen")
    assert not contains("automodality", "Modal")


def test_every_group_needs_one_alternative() -> None:
    assert meets("Eddie Chen deployed me on Modal.", [["Modal"], ["Eddie Chen", "Eddie"]])
    assert not meets("I run on Modal.", [["Modal"], ["Eddie Chen", "Eddie"]])
