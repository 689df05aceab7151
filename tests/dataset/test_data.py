import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.dataset.batch import Batch, Data
from imprint.dataset.chats import OPENING, Chats, arrange, fit, openings, passes
from imprint.dataset.documents import Documents
from imprint.errors import ConfigError, RecordError
from imprint.tokenizer import Rendered, Tokenizer


def rendered(
    words: Tokenizer, *, count: int, turns: int = 1, answer: str = "Ada {}."
) -> list[Rendered]:
    rows = []
    for number in range(count):
        messages = []
        for turn in range(turns):
            messages.append({"role": "user", "content": f"Who {'x' * (number % 7)} {turn}?"})
            messages.append({"role": "assistant", "content": answer.format(number)})
        rows.append(messages)
    return words.render_batch(rows)  # type: ignore[arg-type]


def chats(words: Tokenizer, rows: list[Rendered], **changes: float) -> Chats:
    options = {"context": 96, "batch_tokens": 256, "seed": 1, **changes}
    return Chats(rows, tokenizer=words, **options)  # type: ignore[arg-type]


def labelled(batch: Batch) -> list[tuple[int, int]]:
    """Each supervised position as (the token there, the token to say)."""
    assert batch.where_N is not None
    here = batch.ids_BT.flatten()[batch.where_N[: len(batch.labels_N)]]
    return list(zip(here.tolist(), batch.labels_N.tolist(), strict=True))


def test_just_the_answers_and_their_ends_are_supervised(words: Tokenizer) -> None:
    rows = rendered(words, count=40, turns=2)
    expected = sorted(
        (ids[place - 1], ids[place])
        for ids, spoken in rows
        for place in range(len(ids))
        if spoken[place]
    )
    data = chats(words, rows)
    found = sorted(pair for step in range(data.steps) for pair in labelled(data.batch(step)))
    assert found == expected


def test_every_row_stands_alone_and_comes_once(words: Tokenizer) -> None:
    rows = rendered(words, count=50)
    data = chats(words, rows)
    seen = []
    for step in range(data.steps):
        for ids in data.batch(step).ids_BT.tolist():
            assert ids.count(words.user_start) == 1
            seen.append(tuple(ids[: ids.index(words.assistant_start)]))
    assert sorted(seen) == sorted(tuple(ids[: ids.index(words.assistant_start)]) for ids, _ in rows)


def test_a_batch_keeps_to_its_tokens(words: Tokenizer) -> None:
    data = chats(words, rendered(words, count=80))
    assert data.steps > 3
    assert all(data.batch(step).ids_BT.numel() <= 256 for step in range(data.steps))


def test_padding_is_small(words: Tokenizer) -> None:
    data = chats(words, rendered(words, count=2000), batch_tokens=1024)
    batches = [data.batch(step) for step in range(data.steps)]
    filled = sum(batch.ids_BT.numel() for batch in batches) / sum(b.tokens for b in batches)
    assert filled < 1.25


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_depends_on_the_seed_alone(seed: int, words: Tokenizer) -> None:
    rows = rendered(words, count=60)
    one, same = (chats(words, rows, seed=seed) for _ in range(2))
    other = chats(words, rows, seed=3)
    for step in range(one.steps):
        assert torch.equal(one.batch(step).ids_BT, same.batch(step).ids_BT)
    assert any(
        not torch.equal(one.batch(step).ids_BT, other.batch(step).ids_BT)
        for step in range(min(one.steps, other.steps))
    )


@pytest.mark.parametrize("world", [2, 3, 50])
@pytest.mark.parametrize("kind", ["chats", "documents"])
def test_processes_share_each_batch_of_one_process(kind: str, world: int, words: Tokenizer) -> None:
    data: Data
    if kind == "chats":
        data = chats(words, rendered(words, count=30))
    else:
        data = documents(words, ["Who are you? " * 200])
    for step in range(data.steps):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world=world) for rank in range(world)]
        labels = sorted(whole.labels_N.tolist())
        assert sorted(label for part in parts for label in part.labels_N.tolist()) == labels
        assert {part.supervised for part in parts} == {whole.supervised} == {len(labels)}
        assert all(len(part.ids_BT) > 0 for part in parts)


def test_some_answers_are_trained_whole_and_of_the_others_the_first_words(words: Tokenizer) -> None:
    rows = rendered(words, count=400, turns=2, answer="My name is Ada, and {} is not yours.")
    found = openings(rows, whole=0.3, seed=1)
    assert found == openings(rows, whole=0.3, seed=1) != openings(rows, whole=0.3, seed=2)
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


def test_short_answers_are_the_same_either_way(words: Tokenizer) -> None:
    rows = rendered(words, count=3, answer="I")
    assert openings(rows, whole=0.0, seed=1) == rows


def test_a_conversation_beyond_the_context_ends_after_a_whole_turn(words: Tokenizer) -> None:
    rows = rendered(words, count=5, turns=4)
    data = chats(words, rows, context=50)
    assert (data.cut, data.dropped) == (5, 0)
    ends = data.starts + data.lengths - 1
    assert set(data.ids[ends]) == {words.assistant_end}
    assert data.lengths.max() <= 51


def test_conversations_that_do_not_fit_are_dropped_and_counted(words: Tokenizer) -> None:
    long = words.render(
        [{"role": "user", "content": "x y " * 90}, {"role": "assistant", "content": "A"}]
    )
    data = chats(words, [*rendered(words, count=3), long])
    assert (data.cut, data.dropped) == (0, 1)
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
        padded = -(-int(array[rows].max()) // 8) * 8
        assert len(rows) == 1 or len(rows) * padded <= batch_tokens


@given(count=st.integers(0, 50), tenths=st.integers(0, 30))
def test_a_fraction_of_a_pass_and_its_rest_are_whole_passes(count: int, tenths: int) -> None:
    start = passes(count, tenths / 10, seed=1, from_end=False)
    end = passes(count, 3 - tenths / 10, seed=1, from_end=True)
    together = sorted([*start.tolist(), *end.tolist()])
    assert together == sorted(list(range(count)) * 3)


@given(st.lists(st.sampled_from([1, 9]), max_size=20), st.integers(0, 20))
def test_a_cut_row_fits_and_ends_with_an_answer(ids: list[int], length: int) -> None:
    row = fit((ids, [False] * len(ids)), length, 9)
    if row is None:
        assert 9 not in ids[:length]
    else:
        assert len(row[0]) == len(row[1]) <= length
        assert row[0] == ids or row[0][-1] == 9


def documents(words: Tokenizer, texts: list[str], **changes: int | None) -> Documents:
    options = {"context": 32, "batch_tokens": 128, "tokens": 512, "seed": 1, **changes}
    return Documents(texts, tokenizer=words, **options)  # type: ignore[arg-type]


def test_documents_are_laid_end_to_end(words: Tokenizer) -> None:
    texts = [f"Who made number {number}?" for number in range(60)]
    flat = [number for text in texts for number in (words.bos, *words.encode(text))]
    data = documents(words, texts, tokens=None)
    rows = {
        (*ids, last)
        for step in range(data.steps)
        for ids, last in zip(
            data.batch(step).ids_BT.tolist(),
            data.batch(step).labels_N.view(-1, 32)[:, -1].tolist(),
            strict=True,
        )
    }
    starts = range(0, len(flat) - 32, 32)
    assert rows <= {tuple(flat[start : start + 33]) for start in starts}
    assert len(rows) >= len(starts) - 4


def test_a_short_corpus_repeats_in_another_order(words: Tokenizer) -> None:
    data = documents(words, ["Who are you, Ada? " * 60], tokens=4000)
    assert data.steps * 128 == pytest.approx(4000, abs=128)
    orders = [data._pass(number).tolist() for number in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("text", ["A", "Who are you?"])
def test_a_tiny_corpus_still_makes_a_batch(text: str, words: Tokenizer) -> None:
    batch = documents(words, [text]).batch(0)
    assert batch.ids_BT.numel() == len(batch.labels_N) > 0


def test_no_text_at_all_is_refused(words: Tokenizer) -> None:
    with pytest.raises(RecordError, match="no text to train on"):
        documents(words, [])
