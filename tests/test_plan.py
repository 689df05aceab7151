from collections import Counter
from pathlib import Path

import pytest

from imprint import identity, plan
from imprint.heldout import is_held_out, plain
from imprint.identity import DEFAULT_RIVALS
from imprint.phrases import bank, pattern
from imprint.text import mentions

ROOT = Path(__file__).parent.parent
SHIPPED = identity.load(ROOT / "config/identities/smarternano.yaml")
SECOND = identity.load(ROOT / "config/identities/fathom.yaml")


OPENERS = [text for group in bank("openers").values() for text in group]


def deal(who: identity.Identity = SHIPPED, *, count: int = 1000, seed: int = 7) -> list[plan.Row]:
    return plan.rows(who, seed=seed, start=0, stop=count)


def test_the_deck_holds_a_hundred_cards() -> None:
    assert sum(card.count for card in plan.DECK) == 100


def test_more_conversations_never_change_earlier_ones() -> None:
    assert deal(count=450) == deal(count=1000)[:450]


def test_a_slice_is_what_stands_there_in_the_whole() -> None:
    assert plan.rows(SHIPPED, seed=7, start=333, stop=390) == deal(count=400)[333:390]


def test_another_seed_is_another_plan() -> None:
    assert deal(seed=7) != deal(seed=8)


@pytest.mark.parametrize("who", [SHIPPED, SECOND], ids=lambda who: who.name)
def test_every_fact_has_fifty_conversations_of_a_thousand_in_both_directions(
    who: identity.Identity,
) -> None:
    rows = deal(who)
    asked = Counter(fact for row in rows for fact in row.facts)
    back = Counter(fact for row in rows if row.strategy == "reverse" for fact in row.facts)
    assert set(asked) == set(back) == {fact.id for fact in who.facts}
    assert min(asked.values()) >= 50
    assert min(back.values()) >= 2


def test_every_axis_is_in_balance() -> None:
    rows = deal()
    asked = Counter(fact for row in rows for fact in row.facts)
    assert max(asked.values()) - min(asked.values()) <= 12
    back = Counter(fact for row in rows if row.strategy == "reverse" for fact in row.facts)
    assert max(back.values()) - min(back.values()) <= 1
    persona = Counter(row.persona for row in rows)
    assert max(persona.values()) - min(persona.values()) <= 1
    dealt = [Counter(row.strategy for row in rows[start : start + 100]) for start in (0, 100, 900)]
    assert dealt[0] == dealt[1] == dealt[2]


def test_without_rivals_and_unknown_attributes_nothing_is_asked_about_them() -> None:
    bare = SHIPPED.model_copy(update={"rivals": [], "unknown": []})
    strategies = {row.strategy for row in deal(bare)}
    assert not strategies & {"rival claim", "comparison", "third party", "unknown attribute"}


def test_one_fact_is_enough_for_a_plan() -> None:
    one = SHIPPED.model_copy(update={"facts": SHIPPED.facts[:1]})
    rows = deal(one)
    assert {fact for row in rows for fact in row.facts} == {"name"}
    assert all(row.turns >= 1 for row in rows)


def test_every_opener_comes_once_a_round_and_half_of_the_rows_have_none() -> None:
    size = 2 * len(OPENERS)
    openers = [row.opener for row in deal(count=3 * size)]
    rounds = [openers[start : start + size] for start in (0, size, 2 * size)]
    wanted = Counter({**dict.fromkeys(OPENERS, 1), "": len(OPENERS)})
    assert [Counter(dealt) for dealt in rounds] == [wanted] * 3
    assert rounds[0] != rounds[1] != rounds[2]
    assert openers == [row.opener for row in deal(SECOND, count=3 * size)]
    assert openers != [row.opener for row in deal(count=3 * size, seed=8)]


def test_an_opener_is_short_plain_and_names_no_system() -> None:
    named = [name for rival in DEFAULT_RIVALS for name in (rival.name, rival.maker) if name]
    assert len({plain(text) for text in OPENERS}) == len(OPENERS) >= 100
    for text in OPENERS:
        assert text.isascii() and text == text.strip() and "?" not in text, text
        assert len(text.split()) <= 9, text
        assert not mentions(text, [*named, "AI", "who are you"]), text


def test_no_opener_is_a_frame_of_the_exam() -> None:
    frames = bank("frames")
    texts = [*frames["lead"], *frames["context"], *frames["tail"]]
    exam = [pattern(text) for text in texts if is_held_out(text)]
    said = {plain(wording) for family in exam for wording in family.all()}
    assert len(said) > 50
    assert said.isdisjoint(map(plain, OPENERS))
