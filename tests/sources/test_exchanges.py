"""Claims about the everyday questions: their files, their answers, their split."""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from imprint.heldout import EVERYDAY, is_held_out, plain
from imprint.identity import DEFAULT_RIVALS
from imprint.sources.arithmetic import NUMBERS
from imprint.sources.exchanges import Family, exchanges, groups, unanswered

DATA = Path(str(files("imprint.sources").joinpath("data")))
CHAT = sorted(DATA.glob("chat/*.yaml"))
SUBJECTS = ["smarternano", "Eddie", "Chen", "Karpathy", "nanochat", "FineWeb", "Modal", "GPT"]
NAMES = [*SUBJECTS, *(rival.name for rival in DEFAULT_RIVALS)]
MAKERS = [rival.maker for rival in DEFAULT_RIVALS if rival.maker]


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    lure: bool = False
    common: bool = False
    columns: list[str] = []
    rows: list[list[str]] = []
    questions: list[str] = Field(min_length=3, max_length=7)
    answers: list[str] = Field(min_length=1, max_length=3)
    follow_ups: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []

    @model_validator(mode="after")
    def _rows_fill_the_columns(self) -> "Entry":
        assert bool(self.columns) == bool(self.rows)
        assert all(len(row) == len(self.columns) for row in self.rows)
        return self


class Table(Entry):
    questions: list[str] = Field(min_length=5, max_length=16)
    answers: list[str] = []


class Chat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    topic: str
    families: list[Entry] = Field(min_length=1)


class Questions(Chat):
    families: list[Table] = Field(min_length=1)  # type: ignore[assignment]


def said(family: Family) -> list[str]:
    after = [text for pair in family.follow_ups for text in pair]
    return [*family.questions, *family.answers, *after]


@pytest.mark.parametrize("path", CHAT, ids=lambda path: path.stem)
def test_every_file_of_chat_has_the_right_shape(path: Path) -> None:
    Chat.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted(DATA.glob("questions/*.yaml")), ids=lambda path: path.stem)
def test_every_file_of_questions_has_the_right_shape(path: Path) -> None:
    Questions.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


def test_no_question_without_an_answer_is_also_asked_elsewhere() -> None:
    families = [family for group in unanswered() for family in group]
    asked = Counter(plain(text) for family in families for text in family.questions)
    assert [text for text, count in asked.items() if count > 1] == []
    assert not set(asked) & {plain(text) for family in exchanges() for text in family.questions}
    assert all(text.isascii() for family in families for text in said(family))


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_reads_the_same_with_and_without_libyaml(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    slowly = yaml.safe_load(text)
    assert slowly
    assert slowly == yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def test_there_are_many_families_and_many_lures() -> None:
    entries = [
        entry for path in CHAT for entry in yaml.safe_load(path.read_text("utf-8"))["families"]
    ]
    assert len(entries) >= 350
    assert sum(entry.get("lure", False) for entry in entries) >= 80
    assert sum(family.lure for family in exchanges()) >= 200
    assert len(groups()) > len(entries)  # sums come on top


def test_no_family_and_no_phrasing_occurs_twice() -> None:
    for counted in (
        Counter(family.id for family in exchanges()),
        Counter(text for family in exchanges() for text in family.questions),
    ):
        assert [text for text, count in counted.items() if count > 1] == []


def test_every_text_is_plain_ascii_and_a_whole_sentence() -> None:
    for family in exchanges():
        for text in said(family):
            assert text.isascii(), text
            assert text == text.strip(), text
            if plain(text) in EVERYDAY:
                continue  # also as it is typed in haste: "hello"
            assert text[0].isupper() or text[0].isdigit(), text
            assert text[-1] in ".!?", text
            assert not re.search(r"[{}]|  |\ba [aeio]|\ban [bcdfgjklmnpqrstvwxyz]", text), text


def test_answers_are_short() -> None:
    assert max(len(answer) for family in exchanges() for answer in family.answers) < 160


def test_nothing_says_who_a_model_is() -> None:
    texts = [text for family in exchanges() for text in said(family)]
    texts += [path.read_text("utf-8") for path in DATA.rglob("*.yaml")]
    claim = re.compile(r"\bI (am|was) (a|an|the|made|created|trained|built|developed) ", re.I)
    for text in texts:
        for name in NAMES:
            assert not re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE), name
        for maker in MAKERS:
            assert not re.search(rf"\b{re.escape(maker)}\b", text), maker
    for family in exchanges():
        for answer in family.answers:
            assert not claim.search(answer), answer
            assert not re.search(r"\bmy (name|maker|creator|developer|model)\b", answer, re.I)


def test_sums_are_right() -> None:
    values = {word: number for number, word in enumerate(NUMBERS)}
    digits = {str(number): number for number in range(401)}
    signs = {"plus": "+", "minus": "-", "times": "*", "x": "*", "+": "+", "-": "-"}
    work = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    pattern = re.compile(r"(\w+) (plus|minus|times|x|\+|-) (\w+)(?: is| =)? ?(\w+)?")
    checked = 0
    for family in exchanges():
        if family.topic != "arithmetic" or not family.id.startswith(("plus", "minus", "times")):
            continue
        results = set()
        for text in (family.questions[0], *family.answers[:2]):
            found = pattern.search(text.lower())
            assert found, text
            a, sign, b, result = found.groups()
            known = {**values, **digits}
            results.add(work[signs[sign]](known[a], known[b]))
            if result:
                results.add(known[result])
        assert len(results) == 1, family
        number = NUMBERS[results.pop()]
        assert family.answers[2] == f"That is {number}."
        checked += 1
    assert checked > 150


def test_halves_and_next_numbers_are_right() -> None:
    values = {word: number for number, word in enumerate(NUMBERS)}
    for family in exchanges():
        kind, _, number = family.id.partition("-")
        words = re.findall(r"\w+", family.answers[0].lower())
        if family.topic == "arithmetic" and kind == "half":
            assert values[words[-1]] * 2 == values[words[2]] == int(number)
        if family.topic == "arithmetic" and kind == "after":
            assert values[words[-1]] - 1 == values[words[1]] == int(number)


def test_most_families_can_be_trained_and_examined() -> None:
    families = exchanges()
    trained = [one for one in families if not all(map(is_held_out, one.questions))]
    asked = [one for one in families if any(map(is_held_out, one.questions))]
    assert len(trained) > 0.98 * len(families)
    assert len(asked) > 0.35 * len(families)


def test_phrasings_of_different_answers_differ_by_more_than_punctuation() -> None:
    owner: dict[str, str] = {}
    for family in exchanges():
        if family.topic == "arithmetic":
            continue  # here a sign is all that tells 2 + 1 from 2 - 1
        for question in family.questions:
            assert owner.setdefault(plain(question), family.id) == family.id, question
