"""What conversations were paid for: ``imprint journal``."""

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.errors import ArtifactError
from imprint.generation import JOURNAL

if TYPE_CHECKING:
    from imprint.generation.journal import Journal, Money

app = typer.Typer()


@app.command()
def journal(
    conversation: Annotated[
        int | None, typer.Argument(help="Show every answer to this conversation of the plan.")
    ] = None,
    path: Annotated[Path, typer.Option(help="The journal.", dir_okay=False)] = JOURNAL,
) -> None:
    """Show every answer that was paid for: what it cost, and which could not be used."""
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no journal here. One is kept as soon as a provider is asked over the network."
        )
    from imprint.generation import accounts
    from imprint.generation.journal import Journal

    console = Console(highlight=False)
    with Journal(path, label="imprint journal") as book:
        if conversation is not None:
            for line in answers(book, conversation):
                console.print(line, soft_wrap=True, markup=False)
            return
        models = accounts.models(book)
        console.print(table(models))
        for line in sums(book.money, sum(model["conversations"] for model in models)):
            console.print(line, soft_wrap=True)


def sums(money: "Money", conversations: int) -> list[str]:
    """Return the sentences below the table."""
    lines = [
        f"Spent: ${money.answered_usd:.4f} for {money.answers} answers to {conversations} "
        "conversations."
    ]
    if money.lost:
        lines.append(
            f"Counted as spent: ${money.lost_usd:.4f}, the most that requests without an answer "
            f"can have cost ({money.lost} so far: interrupted, or lost on the way)."
        )
    if money.flying:
        lines.append(f"Under way: {money.flying} requests, ${money.flying_usd:.4f} at most.")
    return lines


def table(models: list[dict[str, Any]]) -> Table:
    """Return what each model did as a table, a row a model."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("model", overflow="fold")
    heads = ("answers", "flawed", "tokens in", "out", "USD", "s each")
    for head in heads:
        shown.add_column(head, justify="right", no_wrap=True)
    for row in models:
        cells = [f"{row[key]:,}" for key in ("answers", "flawed", "input", "output")]
        name = f"{row['provider']}: {row['model']}"
        shown.add_row(name, *cells, f"{row['usd']:.4f}", f"{row['seconds']:.1f}")
    return shown


def answers(book: "Journal", conversation: int) -> list[str]:
    """Return lines that show the answers to a conversation of the plan, oldest first.

    Raises:
        ArtifactError: There is none.
    """
    from imprint.generation import accounts

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
