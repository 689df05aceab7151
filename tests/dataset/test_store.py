import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dataset import kit
from imprint.dataset import writer
from imprint.dataset.store import Store
from imprint.dataset.writer import Piece
from imprint.errors import ArtifactError
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer

SLOW = """
import sys, time
from pathlib import Path
from imprint.dataset import writer
from imprint.tokenizer import Tokenizer

def slow():
    for number in range(30):
        yield "train", f"Who is number {number}?"
        if number == 20:
            Path(sys.argv[2]).touch()
            time.sleep(60)

writer.BLOCK = 64
words = Tokenizer.load(Path(sys.argv[1]))
pieces = [
    writer.Piece("first", [("train", "Ada."), ("validation", "Bo.")], 2),
    writer.Piece("second", slow(), 30),
]
writer.write(Path("base.json"), tokenizer=words, pieces=pieces)
"""


def numbered() -> Iterator[tuple[str, str]]:
    for number in range(30):
        yield "train", f"Who is number {number}?"


def unread() -> Iterator[tuple[str, str]]:
    raise AssertionError("a finished piece was read again")
    yield


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_store_gives_back_every_row_of_either_part(tmp_path: Path, words: Tokenizer) -> None:
    said = ["Who are you?", "", "I am Ada. " * 50, "Qui êtes-vous ?"]
    pieces = [
        Piece("a", [("train", said[0]), ("validation", said[1])], 2),
        Piece("b", [("train", said[2]), ("train", said[3])], 2),
    ]
    index = tmp_path / "base.json"
    writer.write(index, tokenizer=words, pieces=pieces)
    for part, expected in (("train", [said[0], *said[2:]]), ("validation", [said[1]]), ("no", [])):
        store = Store.open(index, part, tokenizer=words.digest)
        assert len(store) == len(expected)
        found = [
            store.ids.read(store.starts[row : row + 1], store.lengths[row : row + 1]).tolist()
            for row in range(len(store))
        ]
        assert found == [[words.bos, *words.encode(text)] for text in expected]
        assert store.tokens == sum(map(len, found))
        assert store.text_bytes == sum(len(text.encode()) for text in expected)
    assert {array.dtype for array in store.ids.arrays} <= {np.dtype("<u2")}
    assert str(tmp_path) not in index.read_text()


def test_a_store_of_conversations_tells_what_is_spoken(tmp_path: Path, words: Tokenizer) -> None:
    chats: list[Conversation] = [
        [{"role": "user", "content": f"Who {n}?"}, {"role": "assistant", "content": "Ada. " * n}]
        for n in range(1, 40)
    ]
    index = tmp_path / "chat.json"
    piece = Piece("a", [("train", chat) for chat in chats], len(chats))
    writer.write(index, tokenizer=words, pieces=[piece])
    store = Store.open(index, "train", tokenizer=words.digest)
    held = Store.of(words.render_batch(chats))
    for one, other in ((store.ids, held.ids), (store.spoken, held.spoken)):
        ours = one.read(store.starts, store.lengths)
        assert np.array_equal(ours, other.read(held.starts, held.lengths))
    assert np.array_equal(store.lengths, held.lengths)


def test_a_killed_run_goes_on_with_the_piece_it_was_at(tmp_path: Path, words: Tokenizer) -> None:
    words.save(tmp_path / "words.json")
    folder = tmp_path / "killed"
    folder.mkdir()
    reached = tmp_path / "reached"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "words.json"), str(reached)], cwd=folder
    )
    while not reached.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert any(path.name.startswith(".") for path in (folder / "base").iterdir())
    assert not (folder / "base.json").exists()
    second = Piece("second", numbered(), 30)
    writer.write(
        folder / "base.json", tokenizer=words, pieces=[Piece("first", unread(), 2), second]
    )
    first = Piece("first", [("train", "Ada."), ("validation", "Bo.")], 2)
    second = Piece("second", numbered(), 30)
    (tmp_path / "whole").mkdir()
    writer.write(tmp_path / "whole" / "base.json", tokenizer=words, pieces=[first, second])
    assert contents(folder) == contents(tmp_path / "whole")


def test_what_changed_is_made_anew_and_what_is_gone_goes(tmp_path: Path, words: Tokenizer) -> None:
    index = tmp_path / "base.json"
    write = writer.write
    write(index, tokenizer=words, pieces=[Piece(k, [("train", k)], 1) for k in ("a", "b", "c")])
    write(index, tokenizer=words, pieces=[Piece("a", unread(), 1), Piece("d", [("v", "d")], 1)])
    fresh = tmp_path / "fresh" / "base.json"
    again = [Piece("a", [("train", "a")], 1), Piece("d", [("v", "d")], 1)]
    write(fresh, tokenizer=words, pieces=again)
    assert contents(tmp_path / "base") == contents(fresh.parent / "base")
    assert index.read_bytes() == fresh.read_bytes()


def test_a_store_that_does_not_belong_here_is_refused(tmp_path: Path, words: Tokenizer) -> None:
    index = tmp_path / "base.json"
    kit.texts(index, words, ["Who are you?"] * 9)
    other = Tokenizer.train(["Something else altogether."], vocabulary=270)
    with pytest.raises(ArtifactError, match=f"made with the tokenizer {words.digest[:12]}, but"):
        Store.open(index, "train", tokenizer=other.digest)
    with pytest.raises(ArtifactError, match="no such file"):
        Store.open(tmp_path / "chat.json", "train", tokenizer=words.digest)
    ids = tmp_path / "base" / "00000.train.ids"
    whole = ids.read_bytes()
    for damaged in (whole[:-2], None):
        ids.unlink()
        if damaged is not None:
            ids.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"should have {len(whole)} bytes.* run again"):
            Store.open(index, "train", tokenizer=words.digest)
    (tmp_path / "base" / "00000.json").write_text("{}")
    kit.texts(index, words, ["Who are you?"] * 9)
    assert ids.read_bytes() == whole
    assert json.loads(index.read_text())["parts"]["train"]["documents"] == 9


@pytest.mark.parametrize(
    "changed",
    [
        *("{}", "[]", '{"tokenizer": 5}', '{"parts": []}', '{"parts": {"train": {}}}'),
        '{"parts": {"train": {"pieces": [{}], "text_bytes": 0}}}',
    ],
)
def test_an_index_of_another_shape_is_refused_by_name(
    changed: str, tmp_path: Path, words: Tokenizer
) -> None:
    index = tmp_path / "base.json"
    kit.texts(index, words, ["Who are you?"])
    odd = json.loads(changed)
    index.write_text(json.dumps({**json.loads(index.read_text()), **odd} if odd else odd))
    with pytest.raises(
        ArtifactError, match=r"base\.json: not an index of tokens \(.*Delete it and"
    ):
        Store.open(index, "train", tokenizer=words.digest)
