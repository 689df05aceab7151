"""Claims about the corpus stage: what it writes, and what it holds out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imprint import artifacts, sources
from imprint.errors import ConfigError
from imprint.stages import corpus


def build(folder: Path, **changed: Any) -> tuple[list[str], list[str], dict[str, Any]]:
    """Run the stage in ``folder``; return the texts, the held-out texts and the manifest."""
    told: dict[str, Any] = {
        "source": "embedded",
        "source_version": 1,
        "characters": 200_000,
        "seed": 1337,
    }
    paths = [folder / name for name in ("text.jsonl", "text.val.jsonl", "manifest.json")]
    corpus.run(**{**told, **changed}, out=paths[0], validation_out=paths[1], manifest=paths[2])
    kept, held = (
        [json.loads(line)["text"] for line in path.read_text("utf-8").splitlines()]
        for path in paths[:2]
    )
    return kept, held, artifacts.read_json(paths[2])


class Shelf:
    """A source of a few given documents."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def documents(self, *, characters: int, seed: int) -> Iterator[str]:
        yield from self.texts


def test_about_one_document_in_a_hundred_is_held_out_and_none_is_in_both(tmp_path: Path) -> None:
    kept, held, manifest = build(tmp_path)
    assert not set(kept) & set(held)
    assert 0.002 < len(held) / len(kept) < 0.03
    assert 200_000 <= sum(map(len, kept + held)) < 203_000
    assert manifest["counts"] == {
        "documents": len(kept),
        "characters": sum(map(len, kept)),
        "validation_documents": len(held),
        "validation_characters": sum(map(len, held)),
    }
    assert manifest["outputs"][str(tmp_path / "text.jsonl")] == artifacts.sha256(
        tmp_path / "text.jsonl"
    )


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(tmp_path / name, characters=30_000, seed=seed)
    first, again, other = (
        [(tmp_path / name / file).read_bytes() for file in ("text.jsonl", "text.val.jsonl")]
        for name in "abc"
    )
    assert first == again
    assert first[0] != other[0]


def test_even_the_smallest_corpus_has_both_sides(tmp_path: Path) -> None:
    kept, held, _ = build(tmp_path, characters=3000)
    assert kept
    assert held


def test_equal_documents_fall_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Document number {number % 300}." for number in range(900)]
    monkeypatch.setattr(sources, "find", lambda name: Shelf(*texts))
    kept, held, _ = build(tmp_path)
    assert len(kept) + len(held) == 900
    assert held
    assert not set(kept) & set(held)


@pytest.mark.parametrize("texts", [(), ("only one",), ("the same", "the same")])
def test_a_source_with_too_little_text_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sources, "find", lambda name: Shelf(*texts))
    with pytest.raises(ConfigError, match=r"corpus: source 'shelf' has no two different documents"):
        build(tmp_path, source="shelf")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_source_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no source is named 'embeded'; installed: .*embedded"):
        build(tmp_path, source="embeded")


def test_the_corpus_is_pinned_to_its_version(tmp_path: Path) -> None:
    build(tmp_path, characters=20_000)
    found = artifacts.digest([artifacts.sha256(tmp_path / "text.jsonl")])[:16]
    assert (corpus.VERSION, found) == (1, "dc590a48139b9808"), (
        "stages/corpus.py writes something else than before. If Embedded.version was not raised "
        f"for it, raise VERSION in stages/corpus.py; then pin the new digest here: {found}"
    )
