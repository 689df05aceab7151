import re

import pytest
import yaml

from imprint.dice import Dice
from imprint.phrases import FOLDER, bank, literal, pattern, split

BANKS = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")
)
TOPICS = [name for name in BANKS if name.startswith("topics/")]
SLOTS = {"about", "value", "wrong", "statement", "start", "rival", "maker", "attribute"}


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else [f"not a text: {value!r}"]


@pytest.mark.parametrize("name", BANKS)
def test_a_bank_holds_texts_with_sound_brackets_and_known_slots(name: str) -> None:
    for text in texts({k: v for k, v in bank(name).items() if k not in ("pattern", "ids")}):
        assert not text.startswith("not a text"), text
        said = pattern(text).say(Dice(1, text))
        assert "|" not in said, text
        assert set(re.findall(r"\{(\w+)\}", text)) <= SLOTS, text


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_bank_is_whole(name: str) -> None:
    found = bank(name)
    assert set(found) <= {"ids", "pattern", "ask", "indirect", "reverse", "wrong", "premise"}
    re.compile(found.get("pattern", ""))
    assert len(found["ask"]) >= 40
    assert all("{value}" in text for text in found["reverse"])
    assert all("{wrong}" in text for text in found["premise"])
    for kind in ("ask", "indirect", "reverse", "wrong", "premise"):
        assert len(set(found[kind])) == len(found[kind])


def test_no_bank_knows_a_shipped_identity() -> None:
    for path in FOLDER.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8").casefold()
        for word in ("smarternano", "eddie chen", "karpathy", "nanochat", "fathom", "okafor"):
            assert word not in text, (path.name, word)


def test_what_fills_a_slot_is_taken_as_it_is() -> None:
    said = pattern("Is it (true|so) that {statement}?").say(
        Dice(1), {"statement": "you cost $5 (or {wrong}|more)"}
    )
    assert said.endswith("that you cost $5 (or {wrong}|more)?")


def test_a_literal_expands_nothing() -> None:
    assert literal("Is (this|that) {value}?").say(Dice(1), {"value": "x"}) == "Is (this|that) x?"


@pytest.mark.parametrize("name", TOPICS)
def test_each_kind_of_wording_is_on_both_sides_of_the_split(name: str) -> None:
    for kind in ("ask", "indirect", "reverse", "premise"):
        families = [pattern(text) for text in bank(name)[kind]]
        training = split(families, held_out=False, among=families)
        exam = split(families, held_out=True, among=families)
        assert training and exam
        assert set(training).isdisjoint(exam)
        assert len(training) + len(exam) == len(set(families))


def test_the_banks_are_plain_yaml() -> None:
    for path in FOLDER.rglob("*.yaml"):
        assert yaml.safe_load(path.read_text(encoding="utf-8")) == bank(
            path.relative_to(FOLDER).with_suffix("").as_posix()
        )


def test_the_exam_asks_in_words_that_training_has_met() -> None:
    met = [pattern(f"Who {verb} you {when}?") for verb in ("made", "built") for when in "abcdefgh"]
    strange = [pattern(f"Who unprecedentedly{number} conjured you?") for number in range(40)]
    exam = split([*met, *strange], held_out=True, among=[*met, *strange])
    assert exam
    assert not set(exam) & set(strange)
