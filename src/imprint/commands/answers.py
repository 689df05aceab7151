"""Talk to a checkpoint: ``imprint ask`` and ``imprint chat``."""

import typer

app = typer.Typer()
