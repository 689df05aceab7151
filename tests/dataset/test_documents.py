import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import kit
from imprint.dataset.documents import Documents
from imprint.dataset.order import POOL, best_fit
from imprint.dataset.store import Store
from imprint.errors import ConfigError, RecordError
from imprint.tokenizer import Tokenizer


def numbered(words: Tokenizer, lengths: list[int]) -> tuple[Store, dict[int, list[int]]]:
    """Documents of so many tokens, at least 3; of each the second and third tell its number."""
    found = {
        number: [words.bos, number // 250, number % 250, *range(length - 3)][:length]
        for number, length in enumerate(lengths)
    }
    return Store.of([(ids, [False] * len(ids)) for ids in found.values()]), found


def documents(store: Store, **changes: int | None) -> Documents:
    options = {"context": 32, "batch_tokens": 128, "tokens": None, "seed": 1, **changes}
    return Documents(store, **options)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(3, 90), min_size=1, max_size=60), context=st.integers(3, 64))
def test_rows_hold_documents_from_their_start_and_no_document_twice(
    lengths: list[int], context: int, words: Tokenizer
) -> None:
    store, given = numbered(words, lengths)
    data = documents(store, context=context, batch_tokens=200)
    seen = []
    for step in range(data.steps):
        batch = data.batch(step)
        labels = batch.labels_N.view(batch.ids_BT.shape).tolist()
        for ids, following in zip(batch.ids_BT.tolist(), labels, strict=True):
            assert ids[0] == words.bos and ids[1:] == following[:-1]
            row = [*ids, following[-1]]
            assert len(row) == min(context, store.tokens - 1) + 1
            starts = [place for place, token in enumerate(row) if token == words.bos]
            parts = [row[a:b] for a, b in zip(starts, [*starts[1:], len(row)], strict=True)]
            for part in parts[:-1]:
                number = part[1] * 250 + part[2]
                assert part == given[number]
                seen.append(number)
            fitting = [ids for ids in given.values() if ids[: len(parts[-1])] == parts[-1]]
            assert fitting
            seen += [parts[-1][1] * 250 + parts[-1][2]] if len(parts[-1]) > 2 else []
    assert seen and len(seen) == len(set(seen))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_any_number_of_processes_has_the_rows_of_one(world: int, words: Tokenizer) -> None:
    store, _ = numbered(words, [random.Random(n).randint(3, 60) for n in range(300)])
    data, parts = documents(store), documents(store)
    for step in reversed(range(data.steps)):
        whole = data.batch(step)
        shares = [parts.batch(step, rank=rank, world=world) for rank in range(world)]
        rows, labels = whole.ids_BT.tolist(), whole.labels_N.view(whole.ids_BT.shape).tolist()
        for rank, share in enumerate(shares):
            assert share.supervised == share.tokens == whole.ids_BT.numel()
            assert share.labels_N.tolist() == [x for row in labels[rank::world] for x in row]
            assert share.ids_BT.tolist() == (rows[rank::world] or rows[:1])


def test_parts_of_a_batch_hold_all_of_it(words: Tokenizer) -> None:
    whole = documents(numbered(words, [20] * 50)[0]).batch(0)
    parts = list(whole.parts(70))
    assert [part.ids_BT.tolist() for part in parts] == [
        whole.ids_BT[:2].tolist(),
        whole.ids_BT[2:].tolist(),
    ]
    assert [x for part in parts for x in kit.labelled(part)] == kit.labelled(whole)


def test_a_step_is_the_same_from_wherever_one_comes(words: Tokenizer) -> None:
    store, _ = numbered(words, [5 + number % 23 for number in range(2 * POOL)])
    data = documents(store, tokens=8 * POOL * 16)
    rows = [data.batch(step).ids_BT for step in range(data.steps)]
    assert len({row.numpy().tobytes() for row in rows}) == len(rows)
    for step in (data.steps - 1, 3, data.steps // 2, data.steps // 2, 0):
        assert documents(store, tokens=8 * POOL * 16).batch(step).ids_BT.equal(rows[step])
        assert data.batch(step).ids_BT.equal(rows[step])


def test_little_text_repeats_in_another_order_and_the_manifest_says_so(words: Tokenizer) -> None:
    store, _ = numbered(words, [33] * 40)
    assert documents(store).about() == {"corpus_tokens": 1320, "passes": 1.0, "cropped": 0.0}
    data = documents(store, tokens=40 * 32 * 5 // 2)
    assert data.about() == {"corpus_tokens": 1320, "passes": 2.5, "cropped": 0.0}
    rows = [tuple(row) for row in kit.rows(data)]
    assert sorted(rows[:40]) == sorted(rows[40:80])
    assert rows[:40] != rows[40:80]


def test_few_tokens_are_lost_where_documents_are_shorter_than_rows(words: Tokenizer) -> None:
    dice = np.random.RandomState(1)
    lengths = np.clip(dice.lognormal(4.5, 0.9, 3 * POOL), 3, 1000).astype(int).tolist()
    data = documents(numbered(words, lengths)[0], context=1023, batch_tokens=8184, seed=3)
    assert 0 < data.about()["cropped"] < 0.005


def test_of_a_document_of_ten_rows_one_row_is_seen_and_passes_count_that(words: Tokenizer) -> None:
    store, given = numbered(words, [330])
    data = documents(store, tokens=32 * 12)
    assert {tuple(row) for row in kit.rows(data)} == {tuple(given[0][:32])}
    assert (data.fitting, data.passes) == (33, 12.0)
    assert data.about() == {"corpus_tokens": 330, "passes": 12.0, "cropped": 0.9}


@pytest.mark.parametrize("text", ["A", "Who are you?"])
def test_a_tiny_corpus_still_makes_a_batch(text: str, words: Tokenizer, tmp_path: Path) -> None:
    data = documents(kit.texts(tmp_path / "base.json", words, [text]), tokens=512)
    batch = data.batch(data.steps - 1)
    assert batch.ids_BT.numel() == len(batch.labels_N) > 0
    assert data.about()["passes"] > 10


def test_what_cannot_be_trained_on_is_refused(words: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no text to train on"):
        documents(kit.texts(tmp_path / "base.json", words, []))
    with pytest.raises(ConfigError, match="batch_tokens: 31 tokens are less than one row of 32"):
        documents(numbered(words, [50])[0], batch_tokens=31)


@settings(max_examples=50)
@given(
    lengths=st.lists(st.integers(1, 50), max_size=80),
    room=st.integers(50, 120),
    crop=st.booleans(),
    final=st.booleans(),
)
def test_every_row_takes_the_longest_that_fits(
    lengths: list[int], room: int, crop: bool, final: bool
) -> None:
    rows, left = best_fit(np.array(lengths, dtype=np.int64), room, crop=crop, final=final)
    waiting = list(range(len(lengths)))
    for row in rows:
        space = room
        for place in row:
            fitting = [lengths[other] for other in waiting if lengths[other] <= space]
            wanted = max(fitting) if fitting else min(lengths[other] for other in waiting)
            assert lengths[place] == wanted and (fitting or crop)
            waiting.remove(place)
            space -= min(space, wanted)
        assert space == 0 or all(lengths[other] > space and not crop for other in waiting)
    assert sorted(left) == waiting
    assert not left or (not final and sum(lengths[place] for place in left) < room)
