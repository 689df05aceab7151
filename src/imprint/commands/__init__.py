"""The commands of ``imprint``, one module a group; imprint.cli gathers them.

To add a group: a module here with ``app = typer.Typer()``, and its name in imprint.cli.GROUPS.
"""

FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Options that a command does not know are for Snakemake."""
