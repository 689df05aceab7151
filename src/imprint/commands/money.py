"""What conversations were paid for: ``imprint journal``."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.errors import ArtifactError
from imprint.generation import accounts
from imprint.generation.journal import PATH, Journal

app = typer.Typer()


@app.command()
def journal(
    conversation: Annotated[
        int | None, typer.Argument(help="Show every answer to this conversation of the plan.")
    ] = None,
    path: Annotated[Path, typer.Option(help="The journal.", dir_okay=False)] = PATH,
) -> None:
    """Show every answer that was paid for: what it cost, and which could not be used."""
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no journal here. One is kept as soon as a provider is asked over the network."
        )
    console = Console(highlight=False)
    with Journal(path, label="imprint journal") as book:
        if conversation is not None:
            for line in answers(book, conversation):
                console.print(line, soft_wrap=True, markup=False)
            return
        console.print(table(accounts.models(book)))
        money = book.money
    console.print(f"Spent: ${money.answered_usd:.4f} for {money.answers} answers.")
    if money.lost:
        console.print(
            f"Counted as spent: ${money.lost_usd:.4f}, the most that {money.lost} requests whose "
            "answers never arrived can have cost."
        )
    if money.flying:
        console.print(f"Under way: {money.flying} requests, ${money.flying_usd:.4f} at most.")


def table(models: list[dict[str, Any]]) -> Table:
    """Return what each model did as a table, a row a model."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("provider")
    shown.add_column("model", overflow="fold")
    heads = ("answers", "conversations", "flawed", "tokens in", "tokens out", "USD", "seconds each")
    for head in heads:
        shown.add_column(head, justify="right")
    for row in models:
        counts = [row["answers"], row["conversations"], row["flawed"], row["input"], row["output"]]
        cells = [f"{count:,}" for count in counts]
        shown.add_row(
            row["provider"], row["model"], *cells, f"{row['usd']:.4f}", f"{row['seconds']:.1f}"
        )
    return shown


def answers(book: Journal, conversation: int) -> list[str]:
    """Return lines that show the answers to a conversation of the plan, oldest first.

    Raises:
        ArtifactError: There is none.
    """
    lines = []
    for row in accounts.answers(book, conversation):
        at = datetime.datetime.fromtimestamp(row["at"], tz=datetime.UTC)
        reply = json.loads(row["reply"])
        flaw = f", {row['flaw']}" if row["flaw"] else ""
        lines.append(
            f"{at:%Y-%m-%d %H:%M:%S} UTC, ask {row['ask']}, {reply['model']}: "
            f"${row['cost_usd']:.6f}, {row['seconds']:.1f} s{flaw}"
        )
        lines += [f"  {turn['role']}: {turn['content']}" for turn in reply["messages"]]
    if not lines:
        raise ArtifactError(
            f"{book.path}: no answer to conversation {conversation}. Conversations count from 0; "
            "`imprint journal` without a number shows how many there are."
        )
    return lines
