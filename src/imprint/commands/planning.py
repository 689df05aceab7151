"""Before anything runs: ``imprint plan``, ``providers``, ``sources`` and ``schemas``."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.errors import ConfigError
from imprint.forecast import Line
from imprint.settings import Settings

app = typer.Typer()

FORWARD = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Options that a command does not know are for Snakemake."""


@app.command(context_settings=FORWARD)
def plan(context: typer.Context) -> None:
    """Show what would be rebuilt, why, and how long that took last time. Runs nothing.

    Options are passed on to Snakemake: imprint plan --config scale=tiny
    """
    from imprint import forecast
    from imprint.commands import scales
    from imprint.generation import estimate

    jobs = forecast.dry_run(context.args)
    lines = forecast.forecast(jobs)
    shards = [job.shard for job in jobs if job.stage == "shards" and job.shard]
    settings = configured(context.args)
    told: list[str] = []
    if any(job.stage == "base" for job in jobs):
        told += filter(None, [scales.pretraining(settings)])
    try:
        paid = estimate.before(settings, shards) if shards else None
        if paid:
            known = replace(
                next(line for line in lines if line.stage == "shards"),
                seconds=paid.seconds,
                cost_usd=paid.usd,
            )
            lines = [known if line.stage == "shards" else line for line in lines]
            told.append(paid.told())
            paid.check()
    except ConfigError as error:  # a plan may be made without a key or enough money
        told.append(f"This would be refused: {error}")
    console = Console(highlight=False)
    console.print(table(lines))
    for line in [*conclusion(lines), *told]:
        console.print(line, soft_wrap=True)


@app.command()
def schemas(root: Path = Path()) -> None:
    """Write workflow/schemas and the tables of config/README.md anew from the models."""
    from imprint.artifacts import written
    from imprint.schemas import generated

    for path, text in generated(root).items():
        with written(path) as file:
            file.write(text)
        typer.echo(path)


@app.command("providers")
def list_providers() -> None:
    """List who can write conversations: names for `provider` in config/config.yaml."""
    from imprint import keys, providers

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("provider", "model by default", "key"):
        shown.add_column(head, overflow="fold")
    for name in providers.names():
        found = providers.find(name)
        variable = found.key_variable
        key = "none needed"
        if variable:
            key = f"{variable}, {'set' if keys.available(variable) else 'not set'}"
        shown.add_row(name, found.default_model, key)
    Console(highlight=False).print(shown)


@app.command("sources")
def list_sources() -> None:
    """List where text and general chat can come from: names for the scale's sources."""
    from imprint import sources

    for name in sources.names():
        typer.echo(name)


def table(lines: list[Line]) -> Table:
    """Return the forecast as a table, a row a stage."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("stage")
    shown.add_column("state")
    shown.add_column("jobs", justify="right")
    shown.add_column("time", justify="right")
    shown.add_column("why", overflow="fold")
    for line in lines:
        if not line.jobs:
            shown.add_row(line.stage, "fresh", "", "", "", style="dim")
            continue
        shown.add_row(line.stage, "stale", str(line.jobs), duration(line.seconds), line.why)
    return shown


def conclusion(lines: list[Line]) -> list[str]:
    """Return the sentences below the table: totals, and what is left alone."""
    stale = [line for line in lines if line.jobs]
    if not stale:
        return ["Nothing to do: everything is up to date."]
    known = sum(line.seconds for line in stale if line.seconds is not None)
    unknown = [line.stage for line in stale if line.seconds is None]
    total = f"{sum(line.jobs for line in stale)} jobs"
    if known:
        total += f", about {duration(known)} of work, judged by the last run"
    if unknown:
        total += f"; not yet timed: {', '.join(unknown)}"
    cost = sum(line.cost_usd for line in stale)
    if cost:
        total += f"; about ${cost:.2f}"
    sentences = [f"{total}."]
    trained = [line.stage for line in stale if line.stage in ("base", "mid", "sft")]
    kept = [line.stage for line in lines if not line.jobs]
    if kept:
        sentences.append(f"Not rebuilt: {', '.join(kept)}.")
    if trained and any(line.stage in ("identity", "tokenizer") and line.jobs for line in lines):
        sentences.append(
            "If the data comes out as it was, `make identity` leaves "
            f"{', '.join(trained)} alone after all."
        )
    return sentences


def duration(seconds: float | None) -> str:
    """Return a length of time for people; ``?`` if it is not known.

    Example:
        >>> duration(None), duration(4.2), duration(200), duration(9000)
        ('?', '4 s', '3 min', '2.5 h')
    """
    if seconds is None:
        return "?"
    if seconds < 1:
        return "< 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def configured(options: list[str]) -> Settings:
    """Return the settings that Snakemake would see with ``options``."""
    from snakemake import cli

    from imprint import yamlfile
    from imprint.settings import merged, resolve

    _, arguments = cli.parse_args(options)
    config: dict[str, Any] = yamlfile.load(Path("config/config.yaml"))[0]
    for path in arguments.configfile or []:
        config = merged(config, yamlfile.load(Path(path))[0])
    return resolve(merged(config, cli.parse_config(arguments.config)), root=Path())
