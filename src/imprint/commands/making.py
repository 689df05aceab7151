"""The main job, ``imprint identity``, and any other: ``imprint run``."""

from pathlib import Path

import typer

from imprint.commands import FORWARD, results

app = typer.Typer()


@app.command(context_settings=FORWARD)
def identity(context: typer.Context) -> None:
    """Build whatever is out of date, and show what the model knows about itself.

    Options are passed on to Snakemake: imprint identity --cores all --config scale=tiny
    """
    from imprint import workflow

    # The data first: docs/decisions/0004 says why.
    status = workflow.run_in_turn([["data", *context.args], context.args])
    if status:
        raise typer.Exit(status)
    results.show(Path("results"), workflow.spoken(context.args))


@app.command(context_settings=FORWARD, hidden=True)
def run(context: typer.Context) -> None:
    """Run Snakemake once its options and settings have been checked.

    For example: imprint run -- export --cores all --config scale=tiny
    """
    from imprint import workflow

    if status := workflow.run_in_turn([context.args]):
        raise typer.Exit(status)
