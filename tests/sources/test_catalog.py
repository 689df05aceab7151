"""Claims about the public collections: the files they ask the hub for, and what becomes of them."""

import importlib
import io
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imprint import records, sources
from imprint.errors import ConfigError
from imprint.sources.catalog import GSM8K, MMLU, ClimbMix, FineWebEdu, SmolSmolTalk
from stubs.files import FileServer

ROOT = Path(__file__).parent.parent.parent


def table(**columns: Any) -> bytes:
    pq.write_table(pa.table(columns), file := io.BytesIO())
    return file.getvalue()


def said(text: str, role: str = "user") -> dict[str, str]:
    return {"content": text, "role": role}  # in the hub's order


CHATS = [
    [said("Be brief.", "system"), said("Hi"), said("Hello.", "assistant")],
    [said("Hi"), said("Hello.", "assistant"), said("Bye"), said("Bye.", "assistant")],
    [said("Hi")],
]

QUESTIONS = {
    "question": ["What is 1 + 1?"],
    "subject": [""],
    "choices": [["1", "2", "3", "4"]],
    "answer": [1],
}

PROBLEMS = {
    "question": ["How many clips?"],
    "answer": ["She sold 48/2 = <<48/2=24>>24 clips.\nIn all <<48+24=72>>72.\n#### 72"],
}

HUB = {
    **{
        f"karpathy/fineweb-edu-100b-shuffle/resolve/main/shard_0000{n}.parquet": table(
            text=[f"{n}"]
        )
        for n in range(3)
    },
    "karpathy/climbmix-400b-shuffle/resolve/main/shard_00000.parquet": table(text=["c"]),
    **{
        f"HuggingFaceTB/smol-smoltalk/resolve/main/data/train-0000{n}-of-00004.parquet": table(
            messages=CHATS, source=["s"] * 3
        )
        for n in range(4)
    },
    "cais/mmlu/resolve/main/all/auxiliary_train-00000-of-00001.parquet": table(**QUESTIONS),
    "openai/gsm8k/resolve/main/main/train-00000-of-00001.parquet": table(**PROBLEMS),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    with FileServer(**{f"datasets/{path}": body for path, body in HUB.items()}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
        yield server


def test_the_first_shards_are_taken_as_many_as_the_text_needs(
    hub: FileServer, tmp_path: Path
) -> None:
    source = FineWebEdu(tmp_path)
    few = source.gather(characters=1, seed=1, folder=tmp_path)
    more = source.gather(characters=500_000_001, seed=2, folder=tmp_path)
    assert more[:1] == few == [tmp_path / "shard_00000.parquet"]
    assert [list(sources.texts(path)) for path in more] == [["0"], ["1"], ["2"]]
    assert len(hub.shelf.asked) == 3
    assert len(ClimbMix(tmp_path / "climbmix").gather(characters=9, seed=1, folder=tmp_path)) == 1


def test_conversations_of_smol_smoltalk_come_as_they_are(hub: FileServer, tmp_path: Path) -> None:
    found = list(SmolSmolTalk(tmp_path).conversations(count=8, seed=1))
    assert sorted(map(len, found)) == [3] * 4 + [4] * 4
    assert all(turns in [records.check(one, "here") for one in CHATS[:2]] for turns in found)


def test_a_question_with_choices_is_answered_by_its_letter(hub: FileServer, tmp_path: Path) -> None:
    ((question, answer),) = MMLU(tmp_path).conversations(count=1, seed=1)
    assert answer["content"] == "B"
    assert question["content"].splitlines() == [
        *("What is 1 + 1?", "", "A) 1", "B) 2", "C) 3", "D) 4", ""),
        "Which one is right? Give just its letter.",
    ]


def test_a_word_problem_loses_the_marks_of_the_calculator(hub: FileServer, tmp_path: Path) -> None:
    (turns,) = GSM8K(tmp_path).conversations(count=1, seed=1)
    assert turns == [
        {"role": "user", "content": "How many clips?"},
        {
            "role": "assistant",
            "content": "She sold 48/2 = 24 clips.\nIn all 72.\nThe answer is 72.",
        },
    ]


def test_text_is_no_chat_and_chat_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'gsm8k' has no plain text"):
        GSM8K(tmp_path).gather(characters=1, seed=1, folder=tmp_path)
    with pytest.raises(ConfigError, match="'fineweb-edu' has no chat"):
        FineWebEdu(tmp_path).conversations(count=1, seed=1)


def test_an_endpoint_that_is_no_url_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "example.org")
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT: 'example\.org' is not a URL"):
        list(GSM8K(tmp_path).conversations(count=1, seed=1))


def test_every_source_goes_by_the_name_it_is_installed_under_and_is_in_the_docs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    for name, place in project["entry-points"][sources.GROUP].items():
        module, _, kind = place.partition(":")
        source = getattr(importlib.import_module(module), kind)
        assert (source.name, issubclass(source, sources.Source)) == (name, True)
        assert f"`{name}`" in page
