import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import kit
from imprint.dataset.mixture import Share
from imprint.dataset.order import POOL
from imprint.dataset.packed import Packed
from imprint.dataset.store import Store
from imprint.errors import ConfigError
from imprint.tokenizer import Rendered, Tokenizer


def packed(words: Tokenizer, rows: list[Rendered], **changes: float) -> Packed:
    options = {"context": 64, "batch_tokens": 256, "seed": 1, **changes}
    shares = [Share(Store.of(part), np.arange(len(part))) for part in (rows[::2], rows[1::2])]
    return Packed(shares, tokenizer=words, **options)  # type: ignore[arg-type]


def unpacked(data: Packed, bos: int) -> list[Rendered]:
    """The conversations of all rows: what is read, and behind it what is said last."""
    found = []
    for step in range(data.steps):
        batch = data.batch(step)
        assert batch.where_N is not None and batch.documents_BT is not None
        labels = np.full(batch.ids_BT.numel(), -1)
        labels[batch.where_N[: len(batch.labels_N)].numpy()] = batch.labels_N.numpy()
        labels = labels.reshape(batch.ids_BT.shape)
        assert (labels >= 0).any(axis=1).all()
        real = 0
        for ids, said, documents in zip(
            batch.ids_BT.numpy(), labels, batch.documents_BT.numpy(), strict=True
        ):
            assert documents.tolist() == sorted(documents)
            starts = np.flatnonzero(np.diff(documents, prepend=-1))
            for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
                if (ids[start:stop] == bos).all():
                    assert stop == len(ids) and (said[start:stop] == -1).all()
                    continue
                spoken = [False, *(said[start:stop] >= 0).tolist()]
                found.append(([*ids[start:stop].tolist(), int(said[stop - 1])], spoken))
                following = said[start:stop][:-1]
                known = following >= 0
                assert (following[known] == ids[start + 1 : stop][known]).all()
                real += stop - start
        assert real == batch.tokens and batch.supervised == len(batch.labels_N)
    return found


def test_joined_conversations_see_each_other_and_no_others(words: Tokenizer) -> None:
    rows = kit.made_up([20] * 90, words)
    found = [ids for ids, _ in unpacked(packed(words, rows, joined=0.5), words.bos)]
    assert set(map(len, found)) == {20, 1 + 2 * 19, 1 + 3 * 19}  # four do not fit
    parts = [ids[at : at + 19] for ids in found for at in range(1, len(ids), 19)]
    assert sorted(parts) == sorted(ids[1:] for ids, _ in rows)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(6, 65), min_size=1, max_size=120),
    batch_tokens=st.integers(64, 999),
)
def test_rows_hold_exactly_the_conversations_given(
    lengths: list[int], batch_tokens: int, words: Tokenizer
) -> None:
    rows = kit.made_up(lengths, words)
    data = packed(words, rows, batch_tokens=batch_tokens)
    assert sorted(unpacked(data, words.bos)) == sorted(rows)
    assert all(
        data.batch(step).ids_BT.shape == (batch_tokens // 64, 64) for step in range(data.steps - 1)
    )
    assert 1 <= len(data.batch(data.steps - 1).ids_BT) <= batch_tokens // 64


def test_a_conversation_too_long_for_a_row_ends_after_a_whole_turn(words: Tokenizer) -> None:
    rows = kit.rendered(words, count=9, turns=5)
    data = packed(words, rows)
    assert (data.mixture.cut, data.mixture.dropped) == (9, 0)
    whole = {tuple(ids): spoken for ids, spoken in rows}
    for ids, spoken in unpacked(data, words.bos):
        assert len(ids) <= 65 and ids[-1] == words.assistant_end
        assert any(tuple(ids) == given[: len(ids)] for given in whole)
        assert spoken[-1]


@pytest.mark.parametrize("world", [2, 3, 8])
def test_any_number_of_processes_has_the_rows_of_one(world: int, words: Tokenizer) -> None:
    data = packed(words, kit.rendered(words, count=60))
    for step in reversed(range(data.steps)):
        whole = data.batch(step)
        parts = [data.batch(step, rank=rank, world=world) for rank in range(world)]
        assert {(part.supervised, part.tokens) for part in parts} == {
            (whole.supervised, whole.tokens)
        }
        assert whole.documents_BT is not None
        together = []
        for rank, part in enumerate(parts):
            together += kit.labelled(part)
            if rank < len(whole.ids_BT):
                assert part.ids_BT.equal(whole.ids_BT[rank::world])
                assert part.documents_BT is not None
                assert part.documents_BT.equal(whole.documents_BT[rank::world])
        assert sorted(together) == sorted(kit.labelled(whole))


def test_parts_of_a_batch_hold_all_of_it(words: Tokenizer) -> None:
    whole = packed(words, kit.rendered(words, count=90)).batch(0)
    parts = list(whole.parts(64))
    assert len(parts) == len(whole.ids_BT) == 4
    assert [x for part in parts for x in kit.labelled(part)] == kit.labelled(whole)
    assert whole.documents_BT is not None
    for number, part in enumerate(parts):
        assert part.documents_BT is not None
        assert part.documents_BT.equal(whole.documents_BT[number : number + 1])
    moved = whole.to(torch.device("meta"))
    tensors = [moved.ids_BT, moved.where_N, moved.labels_N, moved.documents_BT]
    assert all(tensor is not None and tensor.is_meta for tensor in tensors)


def test_little_of_a_row_is_filler(words: Tokenizer) -> None:
    dice = np.random.RandomState(1)
    lengths = np.clip(dice.lognormal(6.2, 0.9, 2 * POOL + 100), 20, 2049).astype(int).tolist()
    data = packed(words, kit.made_up(lengths, words), context=2048, batch_tokens=1 << 16)
    assert 0.99 < data.efficiency < 1


def test_a_batch_that_holds_no_row_is_refused(words: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"batch_tokens: 63 tokens .* of 64\. Raise it to 64"):
        packed(words, kit.rendered(words, count=3), batch_tokens=63)
