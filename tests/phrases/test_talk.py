import re
from pathlib import Path

import pytest

from imprint import identity
from imprint.dice import Dice
from imprint.heldout import plain
from imprint.matcher import claims_rival, fault, mentions_identity
from imprint.phrases.facts import KINDS
from imprint.phrases.talk import Exchange, Manner, Talk
from imprint.text import meets, mentions

ROOT = Path(__file__).parent.parent.parent
IDENTITIES = [identity.load(path) for path in sorted((ROOT / "config/identities").glob("*.yaml"))]


def exchanges(talk: Talk, number: int) -> list[Exchange]:
    """Return one exchange of every sort."""
    who, dice = talk.identity, Dice(number, "test")
    about = dice.pick(who.facts)
    rival = dice.pick(who.rivals).name
    manner = Manner(dice.pick(["plain", "polite", "casual", "terse", "shouting"]), dice.chance(0.1))
    return [
        *(talk.fact(about.id, kind, dice, manner) for kind in KINDS),
        talk.rival(rival, dice, manner),
        talk.rival(rival, dice, manner, key="compare"),
        talk.third_party(rival, dice, manner),
        talk.correction(about, rival, dice),
        talk.unknown(dice.pick(who.unknown), dice, manner),
        talk.greeting(dice.pick(who.style.languages), dice, key="who"),
        talk.greeting(dice.pick(who.style.languages), dice, key="creator"),
    ]


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda who: who.name)
@pytest.mark.parametrize("held_out", [False, True])
def test_every_answer_is_right_by_its_own_measure(who: identity.Identity, held_out: bool) -> None:
    talk = Talk(who, held_out=held_out)
    for number in range(150):
        for said in exchanges(talk, number):
            assert meets(said.assistant, said.expect), said
            assert not mentions(said.assistant, said.forbid), said
            assert not claims_rival(said.assistant, who), said
            assert fault(said.assistant, who) is None, said


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda who: who.name)
def test_a_doubt_that_names_a_rival_is_denied_and_any_other_stood_up_to(
    who: identity.Identity,
) -> None:
    talk, named = Talk(who, held_out=False), 0
    for number in range(150):
        dice = Dice(number, "doubt")
        fact, rival = dice.pick(who.facts), dice.pick(who.rivals)
        said = talk.correction(fact, rival.name, dice)
        names = any(word in said.user for word in (rival.name, rival.maker) if word)
        named += names
        assert said.fact == (None if names else fact.id)
        assert said.assistant.endswith(who.introduction if names else fact.statement)
    assert 20 < named < 130


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda who: who.name)
def test_no_slot_is_left_open(who: identity.Identity) -> None:
    talk = Talk(who, held_out=False)
    for number in range(150):
        for said in exchanges(talk, number):
            assert "{" not in said.user + said.assistant, said
            assert "|" not in said.user, said


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda who: who.name)
def test_small_talk_and_off_topic_chat_leave_the_identity_out(who: identity.Identity) -> None:
    talk = Talk(who, held_out=False)
    for number in range(400):
        for said in (talk.small_talk(Dice(number)), talk.off_topic(Dice(number), Manner())):
            assert not mentions_identity(said.assistant, who)


def test_the_exam_asks_nothing_that_training_asks() -> None:
    who = IDENTITIES[-1]
    training, exam = Talk(who, held_out=False), Talk(who, held_out=True)

    def asked(talk: Talk) -> set[str]:
        terse = Manner("terse")
        return {
            plain(talk.fact(about.id, kind, Dice(number, kind), terse).user)
            for number in range(400)
            for about in [who.facts[number % len(who.facts)]]
            for kind in ("ask", "indirect", "reverse", "premise")
        }

    # Two families may share one of their many wordings: the identity stage drops those rows.
    assert len(asked(exam) & asked(training)) <= 0.02 * len(asked(exam))


def test_a_rival_without_a_maker_is_asked_about_by_name_alone() -> None:
    lone = IDENTITIES[0].model_copy(update={"rivals": [identity.Rival(name="Zorb")]})
    talk = Talk(lone, held_out=False)
    for number in range(60):
        said = talk.rival("Zorb", Dice(number), Manner())
        assert "{" not in said.user
        assert "zorb" in said.user.casefold()


def test_what_the_identity_file_asks_is_taught_and_never_examined() -> None:
    who = IDENTITIES[-1]
    training, exam = Talk(who, held_out=False), Talk(who, held_out=True)
    for about in who.facts:
        taught = {
            training.fact(about.id, "direct", Dice(n), Manner("terse")).user for n in range(99)
        }
        assert {plain(text) for text in about.questions} <= {plain(text) for text in taught}
        asked = {exam.fact(about.id, "ask", Dice(n), Manner("terse")).user for n in range(99)}
        assert not {plain(text) for text in about.questions} & {plain(text) for text in asked}


def test_a_fact_without_questions_is_taught_in_the_words_of_training_alone() -> None:
    bare = IDENTITIES[-1].facts[1].model_copy(update={"questions": [], "statement": "Bo made me."})
    bare = bare.model_copy(update={"expect": [["Bo"]]})
    who = IDENTITIES[-1].model_copy(update={"facts": [bare]})
    training, exam = Talk(who, held_out=False), Talk(who, held_out=True)
    terse = Manner("terse")
    taught = {plain(training.fact(bare.id, "direct", Dice(n), terse).user) for n in range(300)}
    asked = {plain(exam.fact(bare.id, "ask", Dice(n), terse).user) for n in range(300)}
    assert taught
    assert len(taught & asked) <= 0.02 * len(asked)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize(
    ("kind", "denied"), [("helper", True), ("retired person of the sea", False)]
)
def test_who_asks_for_a_human_hears_what_it_is(kind: str, denied: bool, held_out: bool) -> None:
    who = IDENTITIES[-1].model_copy(update={"kind": kind})
    talk, starts = Talk(who, held_out=held_out), set()
    for number in range(200):
        said = talk.nature(Dice(number, "nature"), Manner())
        assert said.assistant.removeprefix("No. ") == who.introduction
        assert meets(said.assistant, said.expect) and not mentions(said.assistant, said.forbid)
        starts.add(said.assistant.startswith("No. "))
    assert starts == ({True, False} if denied else {False})


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Sorry, I do not know that.", False),
        ("I am not sure.", False),
        ("There is no such thing.", False),
        ("No.", True),
        ("I am not Siri.", True),
        ("That I am not.", True),
    ],
)
def test_not_to_know_is_no_denial(answer: str, right: bool) -> None:
    said = Talk(IDENTITIES[-1], held_out=True).rival("Siri", Dice(1), Manner())
    assert meets(answer, said.expect) == right


def test_a_maker_of_the_same_name_is_said_once() -> None:
    talk = Talk(IDENTITIES[-1], held_out=False)
    assert talk.third_party("DeepSeek", Dice(1), Manner()).assistant.count("DeepSeek") == 1


def test_yes_stands_before_no_answer_to_another_question() -> None:
    talk = Talk(IDENTITIES[-1], held_out=False)
    rival = talk.identity.rivals[0].name
    for number in range(600):
        said = talk.correction(talk.identity.facts[0], rival, Dice(number))
        if said.assistant.startswith("Yes"):
            assert not re.search("guess|made? .*up|joke|wrong|how|why", said.user, re.IGNORECASE)
        said = talk.fact("license", "ask", Dice(number), Manner("plain"))
        if said.user.startswith(("Are you", "Is your", "Do you")):
            assert said.assistant == talk.identity.fact("license").statement
