"""The ``imprint`` command: one place that gathers every command group.

A group is a module in imprint/commands with a typer app called ``app``. Its commands import what
is heavy (torch, matplotlib, snakemake) when they run, so that the others start at once.
"""

from typing import Annotated

import typer

from imprint import __version__
from imprint.commands import (
    answers,
    deploying,
    keeping,
    making,
    money,
    planning,
    probes,
    results,
    scales,
    serving,
    sharing,
)
from imprint.script import brisk, reported

GROUPS = (
    making,
    answers,
    serving,
    probes,
    results,
    sharing,
    planning,
    scales,
    money,
    deploying,
    keeping,
)

app = typer.Typer(
    name="imprint",
    help="Bake an identity into a language model's weights, and prove that it took.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # locals in a traceback could hold a key
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in GROUPS:
    app.add_typer(group.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imprint {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Bake an identity into a language model's weights, and prove that it took."""


def main() -> None:
    """Run the command line; an ``ImprintError`` becomes one ``error:`` line and exit status 1."""
    brisk()
    with reported():
        app()
