import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import kit
from imprint.dataset.chats import ROUND, Chats, arrange
from imprint.dataset.mixture import OPENING, Mixture, Share, familiar, fit, openings, passes
from imprint.dataset.store import Store
from imprint.errors import ConfigError
from imprint.records import Conversation
from imprint.tokenizer import Rendered, Tokenizer


def shares(rows: list[Rendered]) -> list[Share]:
    """All of ``rows``, the even ones from one store and the odd ones from another."""
    return [Share(Store.of(part), np.arange(len(part))) for part in (rows[::2], rows[1::2])]


def chats(words: Tokenizer, rows: list[Rendered], **changes: float) -> Chats:
    options = {"context": 96, "batch_tokens": 256, "seed": 1, **changes}
    return Chats(shares(rows), tokenizer=words, **options)  # type: ignore[arg-type]


def test_just_the_answers_and_their_ends_are_supervised(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=40, turns=2)
    expected = sorted(
        (ids[place - 1], ids[place])
        for ids, spoken in rows
        for place in range(len(ids))
        if spoken[place]
    )
    data = chats(words, rows)
    found = sorted(pair for step in range(data.steps) for pair in kit.labelled(data.batch(step)))
    assert found == expected


def test_every_row_stands_alone_and_comes_once(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=50)
    data = chats(words, rows)
    seen = []
    for step in range(data.steps):
        for ids in data.batch(step).ids_BT.tolist():
            assert ids.count(words.user_start) == 1
            seen.append(tuple(ids[: ids.index(words.assistant_start)]))
    assert sorted(seen) == sorted(tuple(ids[: ids.index(words.assistant_start)]) for ids, _ in rows)


def test_a_batch_keeps_to_its_tokens(words: Tokenizer) -> None:
    data = chats(words, kit.rendered(words, count=80))
    assert data.steps > 3
    assert all(data.batch(step).ids_BT.numel() <= 256 for step in range(data.steps))


def test_padding_is_small(words: Tokenizer) -> None:
    data = chats(words, kit.rendered(words, count=2000), batch_tokens=1024)
    batches = [data.batch(step) for step in range(data.steps)]
    filled = sum(batch.ids_BT.numel() for batch in batches) / sum(b.tokens for b in batches)
    assert filled < 1.1


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_depends_on_the_seed_alone(seed: int, words: Tokenizer) -> None:
    rows = kit.rendered(words, count=60)
    one, same = (chats(words, rows, seed=seed) for _ in range(2))
    other = chats(words, rows, seed=3)
    for step in range(one.steps):
        assert torch.equal(one.batch(step).ids_BT, same.batch(step).ids_BT)
    assert any(
        not torch.equal(one.batch(step).ids_BT, other.batch(step).ids_BT)
        for step in range(min(one.steps, other.steps))
    )


@pytest.mark.parametrize("world", [2, 3, 50])
def test_processes_share_each_batch_of_one_process(world: int, words: Tokenizer) -> None:
    data = chats(words, kit.rendered(words, count=30))
    for step in range(data.steps):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world=world) for rank in range(world)]
        labels = sorted(whole.labels_N.tolist())
        assert sorted(label for part in parts for label in part.labels_N.tolist()) == labels
        assert {part.supervised for part in parts} == {whole.supervised} == {len(labels)}
        assert all(len(part.ids_BT) > 0 for part in parts)


def supervised(found: list[tuple[list[int], list[bool]]]) -> list[tuple[int, ...]]:
    """What is trained of each answer."""
    answers: list[tuple[int, ...]] = []
    for ids, said in found:
        runs = itertools.groupby(zip(ids, said, strict=True), key=lambda pair: pair[1])
        answers += [tuple(token for token, _ in run) for flag, run in runs if flag]
    return answers


def opened(words: Tokenizer, rows: list[Rendered], *, whole: float, seed: int) -> list[Rendered]:
    flags = openings(len(rows), whole=whole, seed=seed)
    share = Share(Store.of(rows), np.arange(len(rows)), flags)
    mixture = Mixture([share], context=200, end=words.assistant_end)
    read = [mixture.read(np.array([row])) for row in range(len(rows))]
    return [(ids.tolist(), said.tolist()) for ids, said in read]


def test_some_answers_are_trained_whole_and_of_the_others_the_first_words(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=400, turns=2, answer="My name is Ada, and {} is not yours.")
    found = opened(words, rows, whole=0.3, seed=1)
    assert found == opened(words, rows, whole=0.3, seed=1) != opened(words, rows, whole=0.3, seed=2)
    short = 0
    for (ids, spoken), row in zip(found, rows, strict=True):
        if (ids, spoken) == row:
            continue
        short += 1
        assert spoken[-1] and row[0][: len(ids)] == ids
        assert max(len(run) for run in "".join(".x"[said] for said in spoken).split(".")) == OPENING
        # each answer is trained from its very first token, and nothing else is
        assert [place for place, said in enumerate(spoken) if said and not spoken[place - 1]] == [
            place for place, said in enumerate(row[1]) if said and not row[1][place - 1]
        ]
        assert not any(new and not old for new, old in zip(spoken, row[1], strict=False))
    assert 0.6 < short / len(rows) < 0.8


def test_an_answer_is_familiar_if_many_of_the_rows_give_it(
    words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imprint.dataset.mixture.FAMILIAR", 3)

    def talk(*answers: str) -> Rendered:
        said: Conversation = []
        for text in answers:
            said += [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]
        return words.render(said)

    no, yes, both = talk("No."), talk("Yes."), talk("No.", "Yes.")
    store = Store.of([no, yes, both, talk("No. Yes.")])

    def found(*rows: int) -> list[bool]:
        flags: list[bool] = familiar(store, np.array(rows, dtype=np.int64)).tolist()
        return flags

    assert found(0, 2, 0, 1, 3) == [True, False, True, False, False]
    assert found(2, 2, 2) == [True] * 3
    assert found(0, 0) == [False] * 2
    assert found() == []


def test_short_answers_are_the_same_either_way(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=3, answer="I")
    assert opened(words, rows, whole=0.0, seed=1) == rows


def test_conversations_are_read_from_the_rows_asked_for(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=6)
    chosen = [Share(Store.of(rows[:4]), np.array([3, 0, 3])), Share(Store.of(rows), np.array([5]))]
    mixture = Mixture(chosen, context=96, end=words.assistant_end)
    ids, said = mixture.read(np.array([2, 3, 1, 0]))
    expected = [rows[3], rows[5], rows[0], rows[3]]
    assert ids.tolist() == [token for row in expected for token in row[0]]
    assert said.tolist() == [flag for row in expected for flag in row[1]]


def test_joined_conversations_are_trained_as_they_are_alone_and_what_goes_on_is_whole(
    words: Tokenizer,
) -> None:
    rows = kit.rendered(words, count=200, answer="My name is Ada, and {} is not yours.")
    flags = openings(len(rows), whole=0.3, seed=1)
    share = Share(Store.of(rows), np.arange(len(rows)), flags)

    def read(joined: float, context: int = 96) -> list[tuple[list[int], list[bool]]]:
        mixture = Mixture([share], context=context, end=words.assistant_end, joined=joined, seed=1)
        assert (mixture.cut, mixture.dropped) == (0, 0)
        found = [mixture.read(np.array([talk])) for talk in range(len(mixture.lengths))]
        assert [len(ids) for ids, _ in found] == mixture.lengths.tolist()
        assert mixture.read(np.arange(len(found)))[0].tolist() == [
            n for ids, _ in found for n in ids
        ]
        return [(ids.tolist(), said.tolist()) for ids, said in found]

    alone, talks = read(0.0), read(0.5)
    assert len(alone) == len(rows)

    whole = {tuple(ids[1:]) for ids, _ in rows}
    assert sorted(supervised(alone)) == sorted(supervised(talks))
    longer = [ids for ids, _ in talks if ids.count(words.user_start) > 1]
    assert 20 < len(longer) < 50 and max(map(len, longer)) <= 97
    for ids in longer:
        assert ids.count(words.bos) == 1 and ids[0] == words.bos
        begins = [place for place, token in enumerate(ids) if token == words.user_start]
        parts = [tuple(ids[a:b]) for a, b in itertools.pairwise(begins)]
        assert set(parts) <= whole


def test_a_conversation_beyond_the_context_ends_after_a_whole_turn(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=5, turns=4)
    data = chats(words, rows, context=50)
    assert (data.mixture.cut, data.mixture.dropped) == (5, 0)
    lengths = data.mixture.lengths
    ids, _ = data.mixture.read(np.arange(len(lengths)))
    assert set(ids[np.cumsum(lengths) - 1].tolist()) == {words.assistant_end}
    assert lengths.max() <= 51


def test_conversations_that_do_not_fit_are_dropped_and_counted(words: Tokenizer) -> None:
    long = words.render(
        [{"role": "user", "content": "x y " * 90}, {"role": "assistant", "content": "A"}]
    )
    data = chats(words, [*kit.rendered(words, count=3), long])
    assert (data.mixture.cut, data.mixture.dropped) == (0, 1)
    with pytest.raises(ConfigError, match="none of 1 conversations fits into 96 tokens"):
        chats(words, [long])


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=200),
    batch_tokens=st.integers(1, 500),
)
def test_batches_hold_every_row_once(lengths: list[int], batch_tokens: int) -> None:
    array = np.array(lengths)
    batches = arrange(array, batch_tokens=batch_tokens, seed=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for rows in batches:
        padded = -(-int(array[rows].max()) // ROUND) * ROUND
        assert len(rows) == 1 or len(rows) * padded <= batch_tokens


@given(count=st.integers(0, 50), tenths=st.integers(0, 30))
def test_a_fraction_of_a_pass_and_its_rest_are_whole_passes(count: int, tenths: int) -> None:
    start = passes(count, tenths / 10, seed=1, from_end=False)
    end = passes(count, 3 - tenths / 10, seed=1, from_end=True)
    together = sorted([*start.tolist(), *end.tolist()])
    assert together == sorted(list(range(count)) * 3)


@given(st.lists(st.sampled_from([1, 9]), max_size=20), st.integers(0, 20))
def test_a_cut_row_fits_and_ends_with_an_answer(ids: list[int], length: int) -> None:
    kept = fit(np.array(ids), length, 9)
    if not kept:
        assert not ids or 9 not in ids[:length]
    else:
        assert kept == len(ids) <= length or (kept <= length and ids[kept - 1] == 9)
