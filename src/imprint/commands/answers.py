"""Talk to a checkpoint: ``imprint ask`` and ``imprint chat``."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console

from imprint import records
from imprint.errors import ImprintError, RecordError, StorageError

app = typer.Typer()

Checkpoint = Annotated[Path, typer.Option(help="The model that answers.", dir_okay=False)]
Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Its tokenizer; by default the one beside it.", dir_okay=False),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]
Temperature = Annotated[
    float, typer.Option(min=0, help="0 always says the likeliest word; 1 rolls fair dice.")
]
TopK = Annotated[
    int | None, typer.Option(min=1, help="Choose among this many likeliest tokens only.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the dice, above temperature 0.")]


@app.command()
def ask(
    question: Annotated[list[str] | None, typer.Argument(help="One question, as it is.")] = None,
    checkpoint: Checkpoint = Path("results/sft.pt"),
    tokenizer: Tokenizer = None,
    questions: Annotated[
        Path | None,
        typer.Option(help='Or many: a .jsonl file of {"messages": [...]} lines.', dir_okay=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help='Where the same lines go, "answer" added.', dir_okay=False),
    ] = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    seed: Seed = 0,
) -> None:
    """Ask one question, or a file of them, and print or write the answers, in order."""
    if bool(question) == bool(questions):
        raise typer.BadParameter("give either a question or --questions FILE.jsonl")
    if out and not questions:
        raise typer.BadParameter("--out goes with --questions")
    words = question or []
    if len(words) > 1 and any(" " in word.strip() for word in words):
        raise typer.BadParameter("ask one question at a time, or many with --questions FILE.jsonl")
    lines = _asked(questions) if questions else [_one(" ".join(words))]
    from imprint.engine import Engine

    engine = Engine.load(checkpoint, tokenizer=tokenizer)
    conversations = [line["messages"] for line in lines]
    missing = [one.missing for one in engine.prompts(conversations, max_tokens=max_tokens)]
    if any(missing):
        short = f"{len(missing) - missing.count('')} of {len(missing)} conversations did not fit"
        end = f"{questions}: {short}: the model saw only the end of each."
        _aside(end if questions else missing[0])
    answers = engine.answer(
        conversations,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
    )
    if not questions:
        typer.echo(answers[0])
        return
    full = [{**line, "answer": answer} for line, answer in zip(lines, answers, strict=True)]
    if out is None:
        _tell(sys.stdout, full)
        return
    try:
        if out.is_char_device() or out.is_fifo():  # not to be replaced by a file
            with out.open("w", encoding="utf-8") as file:
                _tell(file, full)
        else:
            records.write_lines(out, full)
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror}. Choose another --out.") from error
    typer.echo(f"{len(full)} answers in {out}", err=True)


@app.command()
def chat(
    question: Annotated[
        str | None, typer.Option("-p", "--prompt", help="Ask this alone, and print the answer.")
    ] = None,
    checkpoint: Checkpoint = Path("results/sft.pt"),
    tokenizer: Tokenizer = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    seed: Seed = 0,
) -> None:
    """Talk to the model in the terminal, or pipe one question a line into it."""
    alone = None if question is None else _one(question)["messages"]
    from imprint.engine import Engine
    from imprint.terminal import Note, Talk

    with Console(stderr=True).status(f"Opening {checkpoint} ..."):  # on a terminal only
        engine = Engine.load(checkpoint, tokenizer=tokenizer)

    def stream(conversation: records.Conversation, note: Note) -> Iterator[str]:
        return engine.stream(
            conversation,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            note=note,
        )

    if alone is None:
        Talk(stream, checkpoint=checkpoint).run()
        return
    for piece in stream(alone, _aside):
        typer.echo(piece, nl=False)
    typer.echo()


def _aside(text: str) -> None:
    typer.echo(text, err=True)


def _tell(file: TextIO, lines: list[dict[str, Any]]) -> None:
    for line in lines:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _one(text: str) -> dict[str, Any]:
    if not text.strip():
        raise ImprintError('the question is empty. Write it in quotes: imprint ask "Who are you?"')
    text = text.encode(errors="replace").decode()  # a terminal can send bytes that are no UTF-8
    return {"messages": [{"role": "user", "content": text}]}


def _asked(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of questions, each with its checked messages.

    Raises:
        RecordError: A line is no object with messages that end with the user's.
    """
    found: list[dict[str, Any]] = []
    for where, value in records.lines(path):
        if not isinstance(value, dict) or "messages" not in value:
            raise RecordError(f'{where}: should be an object with "messages"')
        found.append({**value, "messages": records.check(value["messages"], where, last="user")})
    return found
