import asyncio
from pathlib import Path

import pytest

from imprint import identity, plan, records
from imprint.artifacts import digest
from imprint.identity import Fact, Identity
from imprint.matcher import fault, mentions_identity
from imprint.providers import find
from imprint.providers.template import Template
from imprint.records import Conversation
from imprint.settings import Provision
from imprint.text import meets

ROOT = Path(__file__).parent.parent.parent
SHIPPED = identity.load(ROOT / "config/identities/smarternano.yaml")


def talk(who: Identity, rows: list[plan.Row]) -> list[Conversation]:
    async def all_of_them() -> list[Conversation]:
        provider = Template(who, Provision())
        return [(await provider.answer(provider.request(row))).messages for row in rows]

    return asyncio.run(all_of_them())


def made(who: Identity, count: int) -> list[tuple[plan.Row, Conversation]]:
    rows = plan.rows(who, seed=3, start=0, stop=count)
    return list(zip(rows, talk(who, rows), strict=True))


def numbered(count: int) -> Identity:
    facts = [
        Fact(
            id=f"badge {n}", statement=f"My badge {n} says {n * 37} rooms.", expect=[[f"{n * 37}"]]
        )
        for n in range(1, count + 1)
    ]
    return SHIPPED.model_copy(update={"facts": facts})


def test_it_comes_through_the_door() -> None:
    assert find("template") is Template


@pytest.mark.parametrize("who", [SHIPPED, numbered(1), numbered(60)], ids=["shipped", "1", "60"])
def test_conversations_are_well_formed_and_teach_what_the_plan_says(who: Identity) -> None:
    for row, messages in made(who, 300):
        records.check(messages, "here")
        said = " ".join(turn["content"] for turn in messages if turn["role"] == "assistant")
        assert fault(said, who) is None
        for name in row.facts:
            assert meets(said, who.fact(name).expect), (row, messages)


def test_the_same_row_gives_the_same_conversation_whatever_came_before() -> None:
    rows = plan.rows(SHIPPED, seed=3, start=0, stop=120)
    assert talk(SHIPPED, rows)[100:] == talk(SHIPPED, rows[100:])


def test_nearly_all_of_ten_thousand_conversations_are_distinct() -> None:
    texts = {str(messages) for _, messages in made(SHIPPED, 10_000)}
    assert len(texts) >= 9_500


def test_every_strategy_of_the_plan_has_its_words() -> None:
    strategies = {row.strategy for row, _ in made(SHIPPED, 300)}
    assert strategies == set(plan.STRATEGIES)


def test_turns_are_as_planned() -> None:
    for row, messages in made(SHIPPED, 300):
        assert len(messages) == 2 * row.turns


@pytest.mark.parametrize("strategy", ["rival claim", "unknown attribute", "off topic"])
def test_what_is_asked_first_is_also_asked_later(strategy: str) -> None:
    later = [
        messages
        for row, messages in made(SHIPPED, 3000)
        if row.strategy == strategy and row.turns == 2
    ]
    about_itself = [mentions_identity(messages[1]["content"], SHIPPED) for messages in later]
    assert any(about_itself) and (strategy == "off topic" or not all(about_itself))
    for *_, asked, answer in later:
        assert asked["role"] == "user"
        if strategy == "rival claim":
            assert answer["content"].endswith(SHIPPED.introduction)
        else:
            assert not mentions_identity(answer["content"], SHIPPED)


def test_it_learns_to_say_whether_it_is_human_even_without_rivals_and_languages() -> None:
    style = SHIPPED.style.model_copy(update={"languages": []})
    lone = SHIPPED.model_copy(update={"rivals": [], "style": style})
    answers = [
        messages[-1]["content"]
        for row, messages in made(lone, 1000)
        if row.strategy == "greeting" and "human" in messages[-2]["content"].casefold()
    ]
    assert any(answer == f"No. {lone.introduction}" for answer in answers)
    assert all(answer.endswith(lone.introduction) for answer in answers)


PINNED = "467e5b8979c4cb70"


def test_the_words_change_only_with_the_version() -> None:
    """Shards are not written again for an edit of the words unless `Template.version` says so."""
    spoken = digest([messages for _, messages in made(SHIPPED, 3000)])[:16]
    assert (Template.version, spoken) == (6, PINNED), (
        f"The template provider says something else. Raise Template.version in "
        f"src/imprint/providers/template.py and pin it here with {spoken!r}."
    )
