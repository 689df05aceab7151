"""Cut text and conversations into tokens, once, for every process that trains on them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imprint import artifacts, records, sources
from imprint.corpus import Corpus
from imprint.dataset.writer import Piece, write
from imprint.dice import Dice
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer

VERSION = 1

HELD_OUT = 0.005
"""Share of the general chat that no model is trained on, to judge them by."""
DOCUMENT_BYTES = 2000
"""About how large a document is in its file; parquet is packed. For progress alone."""

Rows = Iterator[tuple[str, str | Conversation]]


def run(
    *,
    store: str,
    text: list[Path],
    tokenizer: Path,
    out: Path,
    manifest: Path,
    settings: Mapping[str, Any],
) -> None:
    """Write the tokens of ``text``, or of general chat, and the index ``out`` of them.

    Args:
        store: What is cut: ``corpus``, ``identity``, or the stage (``mid``, ``sft``) whose chat.
        text: Index of the corpus; conversations to train on, and those held back; or the user's
            files among the sources of chat.
        tokenizer: Turns text into token ids.
        out: The index; read it with ``dataset.store.Store``. Pieces go into the folder beside it.
        manifest: What was made, from what.
        settings: Of chat: ``chat``, conversations by source; ``versions`` of the sources; ``seed``.

    Raises:
        ArtifactError: The corpus has changed, or a download failed.
        ConfigError: A source has no chat.
        RecordError: A file is damaged.
        StorageError: A file may not be written.
    """
    watch = artifacts.Stopwatch()
    if store == "corpus":
        pieces = _corpus(text[0])
    elif store == "identity":
        pieces = [_conversations(*named) for named in zip(PARTS, text, strict=True)]
    else:
        pieces = [_chat(store, name, count, settings) for name, count in settings["chat"].items()]
    write(out, tokenizer=Tokenizer.load(tokenizer), pieces=pieces)
    index = artifacts.read_json(out)
    written = {
        out.with_suffix("") / name: sha256
        for part in index["parts"].values()
        for piece in part["pieces"]
        for name, sha256 in piece["files"].items()
    }
    artifacts.write_manifest(
        manifest,
        stage="tokens",
        version=VERSION,
        outputs=[out, *written],
        known=written,
        inputs=[*text, tokenizer],
        settings={"store": store, **settings},
        seed=int(settings.get("seed", 0)),
        watch=watch,
        tokens={name: part["tokens"] for name, part in index["parts"].items()},
    )


PARTS = ("train", "validation")


def _corpus(index: Path) -> list[Piece]:
    corpus = Corpus.read(index)

    def documents(number: int) -> Rows:
        for aside, text in corpus.documents(number):
            yield PARTS[aside], text

    return [
        Piece(
            artifacts.digest([number, file.sha256, corpus.characters, corpus.seed]),
            documents(number),
            file.bytes // DOCUMENT_BYTES,
        )
        for number, file in enumerate(corpus.files)
    ]


def _conversations(part: str, path: Path) -> Piece:
    with path.open("rb") as file:
        count = sum(1 for _ in file)
    rows = ((part, conversation) for conversation in records.conversations(path))
    return Piece(artifacts.digest([part, artifacts.sha256(path)]), rows, count)


def _chat(stage: str, name: str, count: int, settings: Mapping[str, Any]) -> Piece:
    source, seed = sources.find(name), int(settings["seed"])
    own = int(artifacts.digest([stage, seed])[:8], 16)

    def conversations() -> Rows:
        for conversation in source.conversations(count=count, seed=own):
            # by what is said, so that a conversation that comes again falls on the same side
            dice = Dice(seed, "chat", artifacts.canonical(conversation))
            yield PARTS[dice.chance(HELD_OUT)], conversation

    files = [artifacts.sha256(path) for path in source.local()]
    version = settings["versions"][name]
    return Piece(artifacts.digest([name, version, files, count, own]), conversations(), count)
