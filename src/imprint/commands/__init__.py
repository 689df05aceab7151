"""The commands of ``imprint``, one module a group; imprint.cli gathers them.

To add a group: a module here with ``app = typer.Typer()``, and its name in imprint.cli.GROUPS.
"""
