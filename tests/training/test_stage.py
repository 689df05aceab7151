"""Claims about what base, mid and sft say of their data before they train on it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import training_kit as kit
from imprint import artifacts, hardware
from imprint.dataset.store import Store
from imprint.dataset.writer import Piece, write
from imprint.errors import ArtifactError, RecordError
from imprint.stages import base
from imprint.tokenizer import Tokenizer
from imprint.training.distributed import Ranks
from imprint.training.stage import step_tokens
from training.runner import Ramps

TEXT = "Bo made me in a small workshop, on two cores. "


def trained(folder: Path, words: Tokenizer, rows: list[tuple[str, str]], **changes: Any) -> Any:
    """Run base on ``rows``, each a part and a text; return its manifest."""
    words.save(folder / "tokenizer.json")
    write(folder / "corpus.json", tokenizer=words, pieces=[Piece("text", rows, len(rows))])
    base.run(
        corpus=folder / "corpus.json",
        tokenizer=folder / "tokenizer.json",
        out=folder / "base.pt",
        manifest=folder / "base.json",
        metrics=folder / "base.jsonl",
        settings={"model": kit.MODEL, "training": {**kit.BASE, **changes}, "seed": 5},
    )
    return artifacts.read_json(folder / "base.json")


def test_a_document_of_ten_rows_counts_as_the_row_that_is_seen_of_it(
    tmp_path: Path, words: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("train", TEXT * 100), ("validation", TEXT)]
    with caplog.at_level(logging.INFO, logger="imprint"):
        manifest = trained(tmp_path, words, rows, tokens=640, batch_tokens=64)
    told = Store.open(tmp_path / "corpus.json", "train", tokenizer=words.digest).tokens
    assert told > 650
    assert manifest["passes"] == 10.0
    assert (
        f"base: the corpus has {told:,} tokens, 65 of them in reach of rows: "
        "to train on 640, it is seen about 10.0 times"
    ) in caplog.text
    share = f"{100 * manifest['cropped']:.0f} %"
    assert f"base: {share} of the text is never seen: a document is cropped to 65" in caplog.text


def test_a_corpus_that_is_long_enough_needs_no_word(
    tmp_path: Path, words: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("train", f"{number} {TEXT}") for number in range(100)]
    with caplog.at_level(logging.INFO, logger="imprint"):
        trained(tmp_path, words, [*rows, ("validation", TEXT)], tokens=640, batch_tokens=64)
    assert "of the text" not in caplog.text and "is seen" not in caplog.text
    assert "a step takes" not in caplog.text and "nothing to do" not in caplog.text


@pytest.mark.parametrize(
    ("rows", "error", "told"),
    [
        ([("train", TEXT), ("validation", "")], ArtifactError, r"corpus\.json: holds no text to"),
        ([("train", TEXT)], ArtifactError, r"corpus\.json: holds no text to judge the model by"),
        ([("validation", TEXT)], RecordError, "corpus: no text to train on"),
    ],
)
def test_a_corpus_of_one_side_is_refused_before_training(
    tmp_path: Path,
    words: Tokenizer,
    rows: list[tuple[str, str]],
    error: type[Exception],
    told: str,
) -> None:
    with pytest.raises(error, match=told):
        trained(tmp_path, words, rows)
    assert not (tmp_path / "base.jsonl").exists()


def test_a_batch_of_whole_rows_is_told_and_counts_in_the_forecast(
    tmp_path: Path,
    words: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(hardware, "peak_of", lambda device: 1e6)
    rows = [("train", TEXT), ("train", TEXT * 2), ("validation", TEXT)]
    with caplog.at_level(logging.INFO, logger="imprint"):
        manifest = trained(tmp_path, words, rows, tokens=640, batch_tokens=300)
    length = len(words.encode(TEXT)) + len(words.encode(TEXT * 2)) + 1
    assert manifest["steps"] * 256 == manifest["tokens"] == 512 and length >= 64
    assert "a step takes 256 tokens, 4 whole rows of 64, not the 300 of base.batch_tokens" in (
        caplog.text
    )
    expected = manifest["flops_per_token"] * 512 / (0.4 * 1e6)
    assert manifest["forecast"]["seconds"] == pytest.approx(expected, abs=0.1)


def test_processes_that_get_no_row_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    data: Any = Ramps("base", 3)
    assert step_tokens(data, 200, Ranks(0, 6, torch.device("cpu")), stage="sft") == 200
    data.batch_rows = 4
    for rank in range(6):
        assert step_tokens(data, 128, Ranks(rank, 6, torch.device("cpu")), stage="sft") == 128
    assert caplog.messages == [
        "sft: 2 of 6 processes have nothing to do: a step has 4 rows. Raise sft.batch_tokens to "
        "192 or more, or take fewer processes."
    ]
