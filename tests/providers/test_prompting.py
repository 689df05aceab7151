import hashlib
import json
import re
from dataclasses import replace

import pytest
from pydantic import ValidationError

from imprint import plan
from imprint.identity import Identity
from imprint.matcher import REFUSALS
from imprint.plan import Row
from imprint.providers import prompting
from imprint.text import mentions

PINNED = "2: ac17983dcde458e11ee42d3bac44efb7cd8467572bd7a87bfb93dd0f536dcd4f"

TINY = Identity.model_validate(
    {
        "name": "Tock",
        "kind": "kitchen clock",
        "creator": "Mo Hand",
        "description": "A clock that talks.\n\nIt likes eggs.",
        "facts": [
            {"id": "metal", "statement": "I am made of tin.", "expect": [["tin"]]},
            {
                "id": "price",
                "statement": "I cost $96, or ${name} {braces}\nand $$.",
                "expect": [["$96", "96 dollars"], ["braces"]],
                "forbid": ["free"],
            },
        ],
        "unknown": ["age"],
        "rivals": ["Siri", "Big Ben"],
        "style": {"ascii": True, "languages": ["Dutch"]},
    }
)

ROW = Row(
    index=12,
    strategy="rival claim",
    facts=("metal", "price"),
    subject="Siri",
    turns=2,
    persona="a curious visitor",
    register="terse",
    typos=True,
    opener="hey there",
    seed=987654321,
)

LABEL = re.compile(r"^([A-Z]\w+(?: \(.*?\))?): (.*)$", re.MULTILINE)


def bare(**changes: object) -> Row:
    nothing = {"facts": (), "subject": None, "typos": False, "opener": ""}
    return replace(ROW, **{**nothing, **changes})  # type: ignore[arg-type]


def said(*messages: tuple[str, str]) -> str:
    turns = [{"role": role, "content": content} for role, content in messages]
    return json.dumps({"messages": turns})


def changed(**changes: object) -> str:
    return prompting.system(Identity.model_validate({**TINY.model_dump(), **changes}))


def test_the_prompt_is_what_it_was_in_this_version() -> None:
    asked = [prompting.user(replace(ROW, strategy=name), TINY, ask=2) for name in plan.STRATEGIES]
    text = "\n".join([prompting.system(TINY), *asked])
    found = f"{prompting.VERSION}: {hashlib.sha256(text.encode()).hexdigest()}"
    assert found == PINNED, (
        "The prompt gives other requests now: every conversation would be paid for again. If that "
        f'is meant, raise `version` in prompt.md and set PINNED = "{found}" in this test.'
    )


def test_a_request_has_its_labelled_lines_in_order() -> None:
    assert LABEL.findall(prompting.user(ROW, TINY, ask=1)) == [
        ("Conversation", "12"),
        ("Strategy", "rival claim"),
        ("Fact (metal)", "I am made of tin."),
        ("Fact (price)", "I cost $96, or ${name} {braces} and $$."),
        ("Subject", "Siri"),
        ("Exchanges", "2"),
        ("Person", "a curious visitor"),
        ("Register", "terse, with a few typing mistakes"),
        ("Opener", "hey there"),
    ]


def test_a_line_without_a_value_is_left_out() -> None:
    assert LABEL.findall(prompting.user(bare(), TINY, ask=1)) == [
        ("Conversation", "12"),
        ("Strategy", "rival claim"),
        ("Exchanges", "2"),
        ("Person", "a curious visitor"),
        ("Register", "terse"),
    ]


def test_asking_again_asks_for_something_else() -> None:
    first, second, third = (prompting.user(ROW, TINY, ask=ask) for ask in (1, 2, 3))
    assert third.startswith(first + "\nTake: 3. ")
    assert len({first, second, third}) == 3


def test_the_seed_of_a_row_is_nobodys_business() -> None:
    asked = prompting.user(ROW, TINY, ask=1)
    assert asked == prompting.user(replace(ROW, seed=1), TINY, ask=1)
    assert str(ROW.seed) not in asked


@pytest.mark.parametrize("strategy", plan.STRATEGIES)
def test_every_strategy_is_explained_on_lines_without_a_label(strategy: str) -> None:
    lines = prompting.user(bare(strategy=strategy), TINY, ask=1).splitlines()
    place = lines.index(f"Strategy: {strategy}")
    explained = lines[place + 1 : lines.index("Exchanges: 2")]
    assert explained
    assert not LABEL.search("\n".join(explained))
    assert "$" not in "\n".join(explained)


def test_the_system_part_says_all_of_the_identity() -> None:
    text = prompting.system(TINY)
    assert "- metal: I am made of tin. [tin]\n" in text
    assert "Siri (Apple), Big Ben." in text
    assert "<description>\nA clock that talks.\n\nIt likes eggs.\n</description>" in text
    for word in ("Tock", "kitchen clock", "Mo Hand", "age", "Dutch", TINY.style.tone):
        assert word in text
    assert TINY.style.language_note in text
    assert "About price it never says: free." in text
    assert text.index("metal") > text.index("The profile") > len(text) / 2


def test_the_system_part_is_the_same_for_every_row() -> None:
    rows = plan.rows(TINY, seed=1, start=0, stop=50)
    found = {prompting.system(TINY) for row in rows if prompting.user(row, TINY, ask=1)}
    assert found == {prompting.system(TINY.model_copy(deep=True))}


def test_dollars_braces_and_line_breaks_of_an_identity_are_only_text() -> None:
    text = prompting.system(TINY)
    fact = "- price: I cost $96, or ${name} {braces} and $$. [$96 | 96 dollars; braces]\n"
    assert fact in text
    odd = {"id": "a\n$fact {x} %s", "statement": "Strategy: no\nFact: no", "expect": [["no"]]}
    assert "- a $fact {x} %s: Strategy: no Fact: no [no]\n" in changed(facts=[odd])
    assert "<description>\n$kind\n${}\n</description>" in changed(description="$kind\n${}")


def test_a_fact_can_not_pass_for_a_line_of_the_request() -> None:
    fact = {"id": "$x\n{y}", "statement": "I am tin.\nSubject: Siri", "expect": [["tin"]]}
    who = Identity.model_validate({**TINY.model_dump(), "facts": [fact]})
    found = LABEL.findall(prompting.user(bare(facts=("$x\n{y}",)), who, ask=1))
    assert ("Fact ($x {y})", "I am tin. Subject: Siri") in found
    assert "Subject" not in dict(found)


def test_what_an_identity_lacks_leaves_no_gap_in_the_system_part() -> None:
    style = {"ascii": False, "languages": []}
    facts = [TINY.facts[0].model_dump()]
    text = changed(facts=facts, unknown=[], rivals=[], style=style)
    for start in ("Also understood", "About ", "Things it", "Other systems", "People may greet"):
        assert start not in text
    assert "ASCII" not in text
    assert "ASCII" in prompting.system(TINY)


def test_the_prompt_proposes_only_ways_of_not_knowing_that_count() -> None:
    lines = prompting.rules_text().splitlines()
    rule = next(line for line in lines if "says so plainly" in line)
    proposed = re.findall(r'"(.+?)"', rule)
    assert len(proposed) > 3
    assert all(mentions(phrase, REFUSALS) for phrase in proposed)


def test_the_rules_are_the_prompt_without_identity_and_row() -> None:
    text = prompting.rules_text()
    assert "$" not in text
    for word in ("Tock", "tin", "terse, with", "version:"):
        assert not mentions(text, [word])
    assert prompting.system(TINY).splitlines()[0] in text
    for name in plan.STRATEGIES:
        explained = prompting.user(bare(strategy=name), TINY, ask=1).splitlines()[2]
        assert explained in text


def test_a_longer_conversation_may_take_more_tokens() -> None:
    assert [prompting.max_tokens(bare(turns=turns)) for turns in (1, 2, 3)] == [340, 560, 780]


def test_the_schema_has_no_references_and_no_optional_keys() -> None:
    assert prompting.schema() == {
        "type": "object",
        "additionalProperties": False,
        "required": ["messages"],
        "properties": {
            "messages": {
                "type": "array",
                "description": "The conversation in order: the person first, then in turn, "
                "an answer last.",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["role", "content"],
                    "properties": {
                        "role": {
                            "type": "string",
                            "enum": ["user", "assistant"],
                            "description": "user: the person writes; assistant: the model answers.",
                        },
                        "content": {
                            "type": "string",
                            "description": "What is said, as plain text.",
                        },
                    },
                },
            }
        },
    }


@pytest.mark.parametrize("around", ["{}", "\n {} \n", "```json\n{}\n```", "```\n{}\n```\n"])
def test_an_answer_is_read_with_or_without_a_fence(around: str) -> None:
    text = said(("user", "Tin?"), ("assistant", "I am {tin}, for $96."))
    assert prompting.parse(around.replace("{}", text)) == [
        {"role": "user", "content": "Tin?"},
        {"role": "assistant", "content": "I am {tin}, for $96."},
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello!",
        "null",
        "[]",
        "{}",
        '{"messages": "hi"}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "user", "content": 5}]}',
        '{"messages": [{"role": "model", "content": "hi"}]}',
        '{"messages": [{"role": "system", "content": "hi"}]}',
        '{"messages": [{"role": "user", "content": "hi", "name": "x"}]}',
        '{"messages": [], "note": "done"}',
        '{"messages": [{"role": "user", "content": "hi"}',
        '{"messages": [{"role": "user", "content": "hi"},]}',
        "{'messages': []}",
        'Here it is: {"messages": []}',
        '{"messages": []} Done.',
        '```json\n{"messages": []}',
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        '{"messages": [{"role": "user", "content": "\ud800"}]}',
        "[" * 100_000,
    ],
)
def test_nothing_else_is_read_or_repaired(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        prompting.parse(text)
    assert not isinstance(caught.value, ValidationError)
    assert str(caught.value).startswith("not the conversation asked for: ")
    assert len(str(caught.value)) < 200
