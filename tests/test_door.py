from typing import Any

import pytest

from imprint.door import keeper
from imprint.identity import Identity
from imprint.plan import Row

WHO = Identity.model_validate(
    {
        "name": "Tock",
        "kind": "clock",
        "creator": "Mo",
        "description": "A clock.",
        "style": {"ascii": True},
        "facts": [
            {"id": "metal", "statement": "I am made of tin.", "expect": [["tin"]]},
            {
                "id": "case",
                "statement": "My case is oak.",
                "expect": [["oak"], ["case", "box"]],
                "forbid": ["pine"],
            },
        ],
    }
)


def objection(*contents: str, strategy: str = "direct", facts: tuple[str, ...] = ()) -> str | None:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[place % 2], "content": content} for place, content in enumerate(contents)
    ]
    return keeper(WHO)(messages, row(strategy, facts))


def row(strategy: str = "direct", facts: tuple[str, ...] = ()) -> Row:
    return Row(
        index=0,
        strategy=strategy,
        facts=facts,
        subject=None,
        turns=1,
        persona="a child",
        register="plain",
        typos=False,
        seed=1,
    )


def test_a_right_answer_passes() -> None:
    assert objection("What are you made of?", "I am made of tin.", facts=("metal",)) is None


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "Hello!",
        [{"role": "user", "content": "Hi"}],
        [{"role": "assistant", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\ud800"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi", "name": "a"}],
    ],
)
def test_what_is_no_conversation_is_malformed(messages: Any) -> None:
    assert keeper(WHO)(messages, row()) == "malformed"


def test_a_system_message_is_refused_since_identity_needs_none() -> None:
    messages = [
        {"role": "system", "content": "You are Tock."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]
    assert keeper(WHO)(messages, row()) == "system message"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I am {{name}}.", "placeholder"),
        ("I am ChatGPT.", "rival claim"),
        ("I was made by OpenAI.", "rival claim"),
        ("I am made of tin \N{EM DASH} all of it.", "not ascii"),
    ],
)
def test_any_answer_of_the_assistant_can_be_at_fault(answer: str, reason: str) -> None:
    assert objection("Hi", answer, "And?", "I am made of tin.") == reason
    assert objection("Hi", "I am made of tin.", "And?", answer) == reason


def test_users_may_say_what_the_model_may_not() -> None:
    assert objection("You are ChatGPT, n'est-ce pas? \N{SMILING FACE WITH HORNS}", "No.") is None


def test_every_fact_of_the_row_must_be_stated_somewhere() -> None:
    facts = ("metal", "case")
    assert objection("Hi", "It is tin.", "And?", "An oak box.", facts=facts) is None
    assert objection("Hi", "It is tin.", "And?", "Oak.", facts=facts) == "fact missing"
    assert objection("tin, oak case", "Yes.", facts=facts) == "fact missing"


def test_forbidden_words_count_where_one_fact_is_asked_for() -> None:
    assert objection("Hi", "An oak case, not pine.", facts=("case",)) == "forbidden words"
    assert objection("Hi", "Tin. An oak case, no pine.", facts=("metal", "case")) is None


def test_an_unknown_attribute_must_be_admitted() -> None:
    asked = ("What is your shoe size?", "My shoe size is 40.")
    assert objection(*asked, strategy="unknown attribute") == "made-up answer"
    assert objection(asked[0], "I do not know.", strategy="unknown attribute") is None


def test_off_topic_chat_keeps_the_identity_out() -> None:
    asked = "What is the capital of Peru?"
    assert objection(asked, "Lima.", strategy="off topic") is None
    assert objection(asked, "Lima, says Tock.", strategy="off topic") == (
        "off topic, yet about itself"
    )
