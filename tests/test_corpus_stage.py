"""Claims about the corpus stage: what it gathers, and what is held out of it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imprint import artifacts, sources
from imprint.corpus import Corpus
from imprint.errors import ArtifactError, ConfigError
from imprint.sources import Source
from imprint.stages import corpus


def build(folder: Path, **changed: Any) -> tuple[list[str], list[str], dict[str, Any]]:
    """Run the stage in ``folder``; return the texts, the held-out texts and the manifest."""
    told: dict[str, Any] = {
        "source": "embedded",
        "source_version": 1,
        "characters": 200_000,
        "seed": 1337,
    }
    index, manifest = folder / "index.json", folder / "manifest.json"
    corpus.run(**{**told, **changed}, out=index, manifest=manifest)
    found = Corpus.read(index)
    documents = [pair for number in range(len(found.files)) for pair in found.documents(number)]
    sides = ([text for aside, text in documents if aside is side] for side in (False, True))
    kept, held = sides
    assert list(found.training()) == kept
    return kept, held, artifacts.read_json(manifest)


def shelf(*texts: str) -> Source:
    """Return a source of a few given documents."""

    class Shelf(Source):
        name = "shelf"
        version = 1

        def documents(self, *, characters: int, seed: int) -> Iterator[str]:
            yield from texts

    return Shelf()


def test_about_one_document_in_a_hundred_is_held_out_and_none_is_in_both(tmp_path: Path) -> None:
    kept, held, manifest = build(tmp_path)
    assert not set(kept) & set(held)
    assert 0.002 < len(held) / len(kept) < 0.03
    assert 200_000 <= sum(map(len, kept + held)) < 203_000
    for name in ("index.json", "00000.jsonl"):
        path = tmp_path / name
        assert manifest["outputs"][str(path)] == artifacts.sha256(path)


def test_the_same_settings_give_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(tmp_path / name, characters=30_000, seed=seed)
    first, again, other = ((tmp_path / name / "00000.jsonl").read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_even_the_smallest_corpus_has_both_sides(tmp_path: Path) -> None:
    kept, held, _ = build(tmp_path, characters=3000)
    assert kept
    assert held


def test_of_a_huge_corpus_no_more_is_held_out_than_judges_a_model(tmp_path: Path) -> None:
    _, few, _ = build(tmp_path)
    index = artifacts.read_json(tmp_path / "index.json")
    artifacts.write_json(tmp_path / "huge.json", {**index, "characters": 10**15})
    huge = [text for aside, text in Corpus.read(tmp_path / "huge.json").documents(0) if aside]
    assert huge == few[:1]


def test_equal_documents_fall_on_one_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"Document number {number % 300}." for number in range(900)]
    monkeypatch.setattr(sources, "find", lambda name: shelf(*texts))
    kept, held, _ = build(tmp_path)
    assert len(kept) + len(held) == 900
    assert held
    assert not set(kept) & set(held)


def test_a_source_without_text_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find", lambda name: shelf())
    with pytest.raises(ConfigError, match="corpus: source 'shelf' has no text"):
        build(tmp_path, source="shelf")
    assert list(tmp_path.iterdir()) == []


def test_the_first_document_with_text_is_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PIECE", 1)
    monkeypatch.setattr(sources, "find", lambda name: shelf("", " \n", "One.", "Three.", "Four."))
    kept, held, _ = build(tmp_path)
    assert len(Corpus.read(tmp_path / "index.json").files) == 4
    assert (kept, held) == (["", " \n", "Three.", "Four."], ["One."])


@pytest.mark.parametrize("texts", [["One."], ["", "One.", " "], ["One.", "One."], ["", " "]])
def test_a_corpus_with_nothing_left_to_train_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]
) -> None:
    monkeypatch.setattr(sources, "find", lambda name: shelf(*texts))
    with pytest.raises(
        ConfigError, match=r"source 'books' has too few documents: .* Split a long one"
    ):
        build(tmp_path, source="books")
    assert not (tmp_path / "index.json").exists()


def test_files_of_the_user_stay_where_they_are(tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "letters.jsonl"
    mine.parent.mkdir()
    mine.write_text("".join(json.dumps({"text": f"Letter {n}."}) + "\n" for n in range(50)))
    kept, held, manifest = build(tmp_path / "out", source=str(mine), characters=100)
    assert sorted(kept + held) == sorted(f"Letter {n}." for n in range(50))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"index.json", "manifest.json"}
    assert manifest["outputs"][str(mine)] == artifacts.sha256(mine)


def test_a_file_that_is_gone_or_has_changed_is_named(tmp_path: Path) -> None:
    build(tmp_path, characters=3000)
    with (tmp_path / "00000.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ArtifactError, match=r"00000\.jsonl: listed in .*has another size now"):
        Corpus.read(tmp_path / "index.json")
    (tmp_path / "00000.jsonl").unlink()
    with pytest.raises(ArtifactError, match=r"00000\.jsonl: listed in .*, but it is gone"):
        Corpus.read(tmp_path / "index.json")


def test_the_tokenizer_may_learn_from_a_part(tmp_path: Path) -> None:
    kept, _, _ = build(tmp_path, characters=30_000)
    part = list(Corpus.read(tmp_path / "index.json").training(5000))
    assert part == kept[: len(part)]
    assert sum(map(len, part[:-1])) < 5000 <= sum(map(len, part))


def test_an_unknown_source_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no source is named 'embeded'; installed: .*embedded"):
        build(tmp_path, source="embeded")


def test_the_corpus_is_pinned_to_its_version(tmp_path: Path) -> None:
    build(tmp_path, characters=20_000)
    found = artifacts.sha256(tmp_path / "00000.jsonl")[:16]
    assert (corpus.VERSION, found) == (2, "669e5bb0396625e6"), (
        "stages/corpus.py writes something else than before. If Embedded.version was not raised "
        f"for it, raise VERSION in stages/corpus.py; then pin the new digest here: {found}"
    )
