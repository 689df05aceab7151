"""What the tests of the dataset share: conversations, texts, and stores made of them."""

from collections.abc import Sequence
from pathlib import Path

from imprint.dataset import writer
from imprint.dataset.batch import Batch, Data
from imprint.dataset.store import Store
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


def made_up(lengths: Sequence[int], words: Tokenizer) -> list[Rendered]:
    """Conversations of so many tokens, at least 5: a question of one token, then an answer."""
    return [
        (
            [words.bos, words.user_start, number % 250, words.user_end, words.assistant_start]
            + [(number * 7 + place) % 250 for place in range(length - 6)]
            + [words.assistant_end] * (length > 5),
            [False] * 5 + [True] * (length - 5),
        )
        for number, length in enumerate(lengths)
    ]


def texts(index: Path, words: Tokenizer, given: Sequence[str]) -> Store:
    """A store of texts, written and opened."""
    piece = writer.Piece(key="texts", rows=[("train", text) for text in given], count=len(given))
    writer.write(index, tokenizer=words, pieces=[piece])
    return Store.open(index, "train", tokenizer=words.digest)


def labelled(batch: Batch) -> list[tuple[int, int]]:
    """Each supervised position as (the token there, the token to say)."""
    here = batch.ids_BT.flatten()
    if batch.where_N is not None:
        here = here[batch.where_N[: len(batch.labels_N)]]
    return list(zip(here.tolist(), batch.labels_N.tolist(), strict=True))


def rows(data: Data) -> list[list[int]]:
    """All rows in order."""
    return [row for step in range(data.steps) for row in data.batch(step).ids_BT.tolist()]
