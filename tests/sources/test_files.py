"""Claims about files as sources: which are read, what of them, and what is said of bad ones."""

import gzip
import json
import logging
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprint import sources
from imprint.errors import ConfigError, RecordError
from imprint.records import Conversation
from imprint.sources import reading
from imprint.sources.embedded import Embedded
from stubs.files import FileServer

TEXTS = ["One.", 'Zwei, größer.\nZeile "2"', "三 🙂", "", "x" * 5000, *map(str, range(3000))]


def jsonl(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return path


def parquet(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=700)
    return path


def chats(count: int) -> list[Conversation]:
    return [
        [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]
        for n in range(count)
    ]


def heard(source: sources.Source, count: int, seed: int = 1) -> list[str]:
    return [turns[0]["content"] for turns in source.conversations(count=count, seed=seed)]


def test_parquet_and_jsonl_of_the_same_texts_give_the_same_documents(tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "a.jsonl", [{"text": text, "id": 1} for text in TEXTS])
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked = tmp_path / "b.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    table = parquet(tmp_path / "a.parquet", id=list(range(len(TEXTS))), text=TEXTS)
    for path in (plain, packed, marked, table):
        assert list(sources.texts(path)) == TEXTS
        assert reading.characters(path) == sum(map(len, TEXTS))


def broken(path: Path) -> Path:
    """Cut the end off a parquet file."""
    parquet(path, text=TEXTS)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def scrambled(path: Path) -> Path:
    """Overwrite pages in the middle of a parquet file, whose end is good."""
    body = bytearray(parquet(path, text=TEXTS).read_bytes())
    body[40:4000] = b"\xff" * 3960
    path.write_bytes(body)
    return path


def bytes_of(body: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(body)
        return path

    return make


NOT_UTF8 = pa.array([b"fine", b"\xff\xfe"], type=pa.binary()).view(pa.string())


@pytest.mark.parametrize(
    ("name", "make", "told"),
    [
        ("a.parquet", broken, r"a\.parquet: a broken parquet file \(.*Delete it and run again"),
        ("a.parquet", scrambled, r"a\.parquet: a broken parquet file \("),
        ("a.parquet", bytes_of(b""), r"a\.parquet: a broken parquet file \("),
        ("a.parquet", lambda path: parquet(path, content=["x"]), r"no column 'text', only content"),
        ("a.parquet", lambda path: parquet(path, text=[1]), r"column 'text' holds int64"),
        ("a.parquet", lambda path: parquet(path, text=["a", None]), r"a\.parquet: row 2: no text"),
        ("a.parquet", lambda path: parquet(path, text=NOT_UTF8), r"a broken parquet.*[uU][tT][fF]"),
        (
            "a.jsonl",
            bytes_of(b'{"text":"a"}\n{"text":"\xff"}'),
            r"a\.jsonl:2: byte 10 .* not UTF-8",
        ),
        ("a.jsonl", bytes_of(b'{"text":"a"}\n\n{"text":'), r"a\.jsonl:3: not a JSON value"),
        ("a.jsonl", bytes_of(b'{"text":"\\ud800"}'), r"a\.jsonl:1: not a JSON value"),
        ("a.jsonl", bytes_of(b'{"messages":[]}'), r"a\.jsonl:1: should be an object with a text"),
        (
            "a.jsonl.gz",
            bytes_of(gzip.compress(b"x" * 99)[:-9]),
            r"a\.jsonl\.gz: a broken gzip file",
        ),
        ("a.jsonl.gz", bytes_of(b"{}"), r"a\.jsonl\.gz: a broken gzip file"),
        ("a.jsonl", lambda path: path, r"a\.jsonl: no such file"),
        ("a.parquet", lambda path: path, r"a\.parquet: no such file"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, make: Callable[[Path], Path], told: str
) -> None:
    path = make(tmp_path / name)
    for read in (reading.characters, lambda path: list(reading.texts(path))):
        with pytest.raises(RecordError, match=told):
            read(path)


def test_a_monstrous_line_is_refused_with_its_size_and_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text":"good"}\n')
        file.truncate(200_000_016)  # a hole in the file, read as zeros
    tracemalloc.start()
    with pytest.raises(RecordError, match=r"a\.jsonl:2: a line of 200 MB; at most 67 MB .*Split"):
        list(reading.texts(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * reading.LONGEST_LINE


def test_files_are_found_by_path_pattern_list_and_url(tmp_path: Path) -> None:
    parts = [jsonl(tmp_path / f"{name}.jsonl", [{"text": name * 10}]) for name in "cab"]
    (tmp_path / ".hidden.jsonl").touch()
    (tmp_path / "more").mkdir()
    listed = tmp_path / "more/list.txt"
    listed.write_text(
        f"# mine\n../c.jsonl\n\n  {parts[1]}\nhttps://x.org/d.parquet?v=1\n../[b].*\n"
    )
    with pytest.raises(ConfigError, match=r"list\.txt:6: '\.\./\[b\]\.\*' is not a file that can"):
        sources.find(str(listed))
    listed.write_text(listed.read_text().replace("[b].*", "[b].jsonl"))
    for given, local in {
        str(parts[0]): [parts[0]],
        f"{tmp_path}/*.jsonl": sorted(parts),
        str(listed): [listed, tmp_path / "more/../c.jsonl", parts[1], tmp_path / "more/../b.jsonl"],
        "https://x.org/d.parquet": [],
    }.items():
        assert sources.find(given).local() == local
    assert sources.find("embedded").local() == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("text/a.jsonl", r"source: no file is at text/a\.jsonl"),
        ("text/*.parquet", r"source: no file is at text/\*\.parquet"),
        ("text/a.csv", r"'text/a\.csv' is not a file that can be read.*\.jsonl\.gz"),
        ("https://x.org/a", "is not a file that can be read"),
        ("https://x.org/a.jsonl#sha256=12", "write a checksum as #sha256= and 64 digits"),
        ("list.txt", r"source: list\.txt: cannot be read"),
        ("finewebedu", r"no source is named 'finewebedu'; installed: .*embedded.*path or a URL"),
    ],
)
def test_what_is_no_source_is_refused_with_the_next_step(given: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        sources.find(given)


def test_as_many_files_are_gathered_as_it_takes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [jsonl(tmp_path / f"{n}.jsonl", [{"text": "x" * 100}] * (n != 1)) for n in range(4)]
    paths.append(broken(tmp_path / "4.parquet"))  # never reached
    (tmp_path / "list.txt").write_text("\n".join(path.name for path in paths))
    source = sources.find(str(tmp_path / "list.txt"))

    def gathered(characters: int) -> list[Path]:
        return source.gather(characters=characters, seed=1, folder=tmp_path / "made")

    assert gathered(100) == [paths[0]]
    assert gathered(101) == [paths[0], paths[2]]
    assert "1.jsonl: is empty" in caplog.text
    assert gathered(300) == [paths[0], paths[2], paths[3]]
    with pytest.raises(RecordError, match=r"4\.parquet: a broken parquet file"):
        gathered(301)
    few = sources.find(str(paths[0]))
    assert few.gather(characters=500, seed=1, folder=tmp_path) == [paths[0]]
    assert "100 characters, fewer than the 500 asked for" in caplog.text
    with pytest.raises(RecordError, match="holds no text at all"):
        sources.find(str(paths[1])).gather(characters=1, seed=1, folder=tmp_path)


def test_files_at_urls_are_downloaded_and_then_read_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    body = jsonl(tmp_path / "a.jsonl", [{"text": "abc"}]).read_bytes()
    with FileServer(**{"x/a.jsonl": body, "y/a.jsonl": body}) as server:
        listed = tmp_path / "list.txt"
        listed.write_text(f"{server.url}/x/a.jsonl\n{server.url}/y/a.jsonl\n")
        source = sources.find(str(listed), folder=tmp_path / "downloads")
        paths = source.gather(characters=6, seed=1, folder=tmp_path)
        assert source.local() == [listed]
    assert [path.parent for path in paths] == [tmp_path / "downloads/files"] * 2
    assert [text for path in paths for text in sources.texts(path)] == ["abc", "abc"]
    assert source.gather(characters=6, seed=1, folder=tmp_path) == paths


def test_chat_is_a_seeded_choice_that_repeats_only_when_all_were_seen(tmp_path: Path) -> None:
    rows = chats(2000)
    lines = jsonl(tmp_path / "a.jsonl", [*rows[:999], *({"messages": row} for row in rows[999:])])
    (tmp_path / "parts").mkdir()
    parquet(tmp_path / "parts/0.parquet", messages=rows[:900])
    parquet(tmp_path / "parts/1.parquet", messages=rows[900:], more=list(range(1100)))
    one, two = sources.find(str(lines)), sources.find(f"{tmp_path}/parts/*.parquet")
    few = heard(one, 50)
    assert few == heard(two, 50) and few != heard(one, 50, seed=2)
    assert len(set(few)) == 50 and set(few) < set(heard(one, 60))
    assert sorted(heard(two, 2000)) == sorted(turns[0]["content"] for turns in rows)
    again = Counter(heard(two, 5000))
    assert len(again) == 2000 and set(again.values()) == {2, 3}


def test_rows_that_are_no_conversation_are_replaced_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[Any] = chats(100)
    rows[10], rows[20], rows[30] = [], {"text": "no chat"}, rows[30][:1]
    source = sources.find(str(jsonl(tmp_path / "a.jsonl", rows)))
    assert len(set(heard(source, 97))) == 97
    assert "3 rows are no conversation; " in caplog.text
    assert "a.jsonl:11: should be a list of messages" in caplog.text
    assert len(heard(source, 200)) == 200
    none = sources.find(str(jsonl(tmp_path / "b.jsonl", [{"text": "a"}] * 9)))
    with pytest.raises(
        RecordError, match=r"none of 9 rows is a conversation; .*b\.jsonl:\d: should"
    ):
        heard(none, 1)


def test_text_that_is_made_is_written_in_whole_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "PIECE", 40_000)
    monkeypatch.setattr(sources, "_TICK", 10_000)
    with caplog.at_level(logging.INFO):
        paths = Embedded().gather(characters=100_000, seed=3, folder=tmp_path / "corpus")
    assert [path.name for path in paths] == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]
    assert [text for path in paths for text in sources.texts(path)] == list(
        Embedded().documents(characters=100_000, seed=3)
    )
    assert "corpus 10/10" in caplog.text
    before = [path.read_bytes() for path in paths]
    Embedded().gather(characters=100_000, seed=3, folder=tmp_path / "corpus")
    assert [path.read_bytes() for path in paths] == before
