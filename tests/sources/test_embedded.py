"""Claims about the source that ships with the package."""

import re
import time
from collections import Counter

import pytest

from imprint import records, sources
from imprint.artifacts import digest
from imprint.heldout import is_held_out
from imprint.sources import Source
from imprint.sources.embedded import OPENERS, Embedded, Phrasings

PINNED_DOCUMENTS = "08808aeea967d52c5cb85d181918a059c1324d0e29b773379dae53e9e7aad959"
PINNED_CONVERSATIONS = "212b8469c0082430f0652b08d32ebeeadef7b2a0437ac2842ab893de94b1450d"
RAISE = (
    "The embedded source yields something else than before. If that is meant, raise "
    "Embedded.version in src/imprint/sources/embedded.py and pin the new digest here: {}"
)


@pytest.fixture(scope="module")
def library() -> list[str]:
    """Two million characters, as the tiny scale uses them."""
    return list(Embedded().documents(characters=2_000_000, seed=1337))


def unopened(text: str) -> str:
    """Return the question without what people say before they ask."""
    return next((text.removeprefix(start) for start in OPENERS if text.startswith(start)), text)


def test_the_source_is_found_by_its_name() -> None:
    source: Source = sources.find("embedded")
    assert isinstance(source, Embedded)
    assert source.exchanges()


def test_documents_are_pinned_to_the_byte() -> None:
    found = digest([1, *Embedded().documents(characters=60_000, seed=7)])
    assert (Embedded.version, found) == (1, PINNED_DOCUMENTS), RAISE.format(found)


def test_conversations_are_pinned_to_the_byte() -> None:
    found = digest([1, *Embedded().conversations(count=300, seed=7)])
    assert (Embedded.version, found) == (1, PINNED_CONVERSATIONS), RAISE.format(found)


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
        for family in Embedded().exchanges()
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


def test_conversations_ask_only_training_phrasings() -> None:
    for turns in Embedded().conversations(count=3000, seed=4):
        for turn in turns[::2]:
            assert not is_held_out(turn["content"]), turn
            assert not is_held_out(unopened(turn["content"])), turn


@pytest.mark.parametrize(("phrasings", "both"), [("held-out", False), ("all", True)])
def test_other_phrasings_can_be_asked_for(phrasings: Phrasings, both: bool) -> None:
    asked = Embedded().conversations(count=300, seed=4, phrasings=phrasings)
    sides = {is_held_out(unopened(turns[0]["content"])) for turns in asked}
    assert sides == ({True, False} if both else {True})


def test_more_conversations_begin_with_the_same_ones() -> None:
    few = list(Embedded().conversations(count=20, seed=5))
    more = list(Embedded().conversations(count=40, seed=5))
    assert more[:20] == few


def test_conversations_rarely_repeat() -> None:
    found = [repr(turns) for turns in Embedded().conversations(count=5000, seed=6)]
    assert len(set(found)) > 4000


def test_no_kind_of_question_crowds_out_the_others() -> None:
    topics = {
        question: family.topic for family in Embedded().exchanges() for question in family.questions
    }
    asked = Counter(
        topics[unopened(turns[0]["content"])]
        for turns in Embedded().conversations(count=3000, seed=8)
        if unopened(turns[0]["content"]) in topics
    )
    assert set(asked) == set(topics.values())
    assert max(asked.values()) < 0.4 * asked.total()


def test_the_source_is_fast() -> None:
    list(Embedded().documents(characters=1000, seed=1))  # reads the files
    start = time.process_time()
    list(Embedded().documents(characters=500_000, seed=2))
    list(Embedded().conversations(count=5000, seed=2))
    assert time.process_time() - start < 2  # 0.35 s where nothing else runs
