"""Claims about the source that ships with the package."""

import re
import time
from collections import Counter

import pytest

from imprint import records, sources
from imprint.artifacts import digest
from imprint.heldout import is_held_out, plain
from imprint.phrases import bank
from imprint.sources import Source
from imprint.sources.embedded import Embedded, Modest
from imprint.sources.exchanges import exchanges, groups, unanswered

PINNED_DOCUMENTS = "d4e4b2eaf306822aa29e8729b314a0671e86661998c344deb0933b871f577b04"
PINNED_CONVERSATIONS = "efe0bcd07e97224f651915e7a4d20a343cd2790e048c2b282e55ee24f69ed4d0"
RAISE = (
    "The embedded source yields something else than before. If that is meant, raise "
    "Embedded.version in src/imprint/sources/embedded.py and pin the new digest here: {}"
)


@pytest.fixture(scope="module")
def library() -> list[str]:
    """Two million characters, as the tiny scale uses them."""
    return list(Embedded().documents(characters=2_000_000, seed=1337))


def test_the_source_is_found_by_its_name() -> None:
    source: Source = sources.find("embedded")
    assert isinstance(source, Embedded)
    assert isinstance(sources.find("modest"), Modest)


def test_documents_are_pinned_to_the_byte() -> None:
    found = digest([1, *Embedded().documents(characters=60_000, seed=7)])
    assert (Embedded.version, found) == (6, PINNED_DOCUMENTS), RAISE.format(found)


def test_conversations_are_pinned_to_the_byte() -> None:
    found = digest([1, *Embedded().conversations(count=300, seed=7)])
    assert (Embedded.version, found) == (6, PINNED_CONVERSATIONS), RAISE.format(found)


def test_documents_are_as_long_as_asked_and_never_repeat(library: list[str]) -> None:
    total = sum(map(len, library))
    assert 2_000_000 <= total < 2_003_000
    assert len(set(library)) == len(library) > 3000


LEFTOVERS = re.compile(
    r"[{}|]|  |(?<!\.)\.\.(?!\.)|\bNone\b| [,!]| \.(?!\.)|\w \?|\ba (?!one)[aeio]\w"
)
"""Signs of a rule that went wrong. An ellipsis, as in a sentence to complete, is none."""


def test_documents_are_plain_ascii_without_leftovers(library: list[str]) -> None:
    for text in library:
        assert text.isascii(), text
        assert text == text.strip()
        assert not LEFTOVERS.search(text), text
        assert text == text.lower() or not re.search(r"(?m)^[a-z]", text), text


def test_documents_differ_in_kind_and_length(library: list[str]) -> None:
    lengths = sorted(map(len, library))
    assert lengths[0] < 200
    assert lengths[-1] > 1200
    assert len({text[:12] for text in library}) > 1000


def test_no_sentence_makes_up_more_than_a_sliver_of_the_text(library: list[str]) -> None:
    sentences = Counter(
        part for text in library for part in re.split(r"(?<=[.!?])\s+", text) if len(part) > 20
    )
    _, count = sentences.most_common(1)[0]
    assert count < 0.01 * sentences.total()


def test_everyday_words_of_questions_are_in_the_documents(library: list[str]) -> None:
    words = Counter(re.findall(r"[a-z]+", " ".join(library).lower()))
    wanted = """who what where when why how which whose name called nickname made built created
    designed developed wrote invented trained taught run runs hosted paid owns licence license
    cost price dollars old age born birthday address years hardware computer chip data book
    software code repository network layers parameters city colour food hobby author creator
    maker founder inventor engineer architecture source open public free machine server cloud
    hello thank you your mistake wrong right true not know nobody purpose based""".split()
    rare = [word for word in wanted if words[word] < 20]
    assert rare == []


def test_documents_never_ask_what_only_the_exam_may_ask(library: list[str]) -> None:
    held = {
        question
        for family in exchanges()
        for question in family.questions
        if is_held_out(question) and len(question.split()) > 4
    }
    asked = {
        line for text in library for line in re.findall(r"(?m)^(?:Q: |Question: |- )(.*)$", text)
    }
    assert asked & held == set()


def test_another_seed_gives_other_documents() -> None:
    first, second = (set(Embedded().documents(characters=20_000, seed=seed)) for seed in (1, 2))
    assert not first & second


def test_conversations_are_well_formed_and_vary_in_length() -> None:
    lengths = Counter()  # type: ignore[var-annotated]
    for turns in Embedded().conversations(count=500, seed=3):
        records.check(turns, "here")
        lengths[len(turns)] += 1
    assert set(lengths) >= {2, 4, 6}
    assert lengths[2] > 150


@pytest.mark.parametrize("source", [Embedded(), Modest()], ids=lambda source: source.name)
def test_conversations_ask_nothing_that_the_exam_may_ask(source: Embedded) -> None:
    held = {
        f" {plain(text)} "
        for group in source.groups()
        for family in group
        for text in family.questions
        if is_held_out(text) and len(text.split()) > 4
    }
    for turns in source.conversations(count=1500, seed=4):
        for turn in turns[::2]:
            assert not is_held_out(turn["content"]), turn
            assert f" {plain(turn['content'])} " not in held, turn


def test_the_modest_source_admits_what_it_does_not_know() -> None:
    asked = {text: family for family in exchanges() for text in family.questions}
    unsure, known = set(bank("answers")["unsure"]), Counter()  # type: ignore[var-annotated]
    for turns in Modest().conversations(count=3000, seed=4):
        records.check(turns, "here")
        family = asked.get(turns[0]["content"])
        if family is not None:
            answers = set(family.answers) if family.common else unsure
            assert turns[1]["content"] in answers, turns
            known[family.common] += 1
    assert min(known.values()) > 30


def test_the_modest_source_also_asks_what_has_no_answer() -> None:
    beyond = {text for group in unanswered() for family in group for text in family.questions}
    heard = [turns[0]["content"] for turns in Modest().conversations(count=1000, seed=4)]
    assert len(beyond) > 9000 and sum(text in beyond for text in heard) > 80
    assert not beyond & {
        turns[0]["content"] for turns in Embedded().conversations(count=999, seed=4)
    }
    assert all(family.answers for group in groups() for family in group)


def test_more_conversations_begin_with_the_same_ones() -> None:
    few = list(Embedded().conversations(count=20, seed=5))
    more = list(Embedded().conversations(count=40, seed=5))
    assert more[:20] == few


def test_conversations_rarely_repeat() -> None:
    found = [repr(turns) for turns in Embedded().conversations(count=5000, seed=6)]
    assert len(set(found)) > 4000


def test_no_kind_of_question_crowds_out_the_others() -> None:
    topics = {question: family.topic for family in exchanges() for question in family.questions}
    first = [turns[0]["content"] for turns in Embedded().conversations(count=3000, seed=8)]
    asked = Counter(topics[text] for text in first if text in topics)
    assert set(asked) == set(topics.values())
    assert max(asked.values()) < 0.4 * asked.total()


def test_the_source_is_fast() -> None:
    list(Embedded().documents(characters=1000, seed=1))  # reads the files
    start = time.process_time()
    list(Embedded().documents(characters=500_000, seed=2))
    list(Embedded().conversations(count=5000, seed=2))
    assert time.process_time() - start < 2  # 0.35 s where nothing else runs
