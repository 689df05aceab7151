"""Before anything runs: ``imprint plan``, ``providers``, ``sources`` and ``schemas``."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.commands import FORWARD
from imprint.errors import ConfigError

if TYPE_CHECKING:
    from imprint.forecast import Line
    from imprint.settings import Settings
    from imprint.workflow import Job

app = typer.Typer()


@app.command(context_settings=FORWARD)
def plan(context: typer.Context) -> None:
    """Show what would be rebuilt, why, and how long that took last time. Runs nothing.

    Options are passed on to Snakemake: imprint plan --config scale=tiny
    """
    from imprint import forecast, workflow
    from imprint.commands import scales
    from imprint.generation import estimate

    settings = workflow.configured(context.args)
    jobs = workflow.dry_run(context.args)
    lines = forecast.forecast(jobs, settings)
    shards = [job.wildcards["shard"] for job in jobs if job.stage == "shards"]
    lines, told = rented(context.args, jobs, lines, settings)
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


def rented(
    options: list[str], jobs: "list[Job]", lines: "list[Line]", settings: "Settings"
) -> "tuple[list[Line], list[str]]":
    """Return ``lines`` with what costs money at Modal, if ``options`` lead there, and what to tell.

    Args:
        options: For Snakemake.
        jobs: That would run.
        lines: The forecast of them.
        settings: Those of now.
    """
    from imprint import workflow

    chosen = workflow.executor(options)
    if chosen is None:
        return lines, []
    from snakemake_interface_common.exceptions import WorkflowError

    from imprint import renting
    from snakemake_executor_plugin_modal import money

    try:
        there = renting.rented(jobs, chosen.rules)
        if not there:
            return lines, []
        most = sum(each.limit_usd for each in there)
        told = [
            f"At Modal's rates of {money.RATES_DATE}, a run that takes every job to its time "
            f"limit costs ${most:.2f}."
        ]
        lines = renting.priced(lines, there, settings)
        money.Budget(chosen.max_usd).check((each.job.stage, each.limit_usd) for each in there)
    except WorkflowError as error:
        told = [f"This would be refused: {error}"]
    return lines, told


def table(lines: "list[Line]") -> Table:
    """Return the forecast as a table, a row a stage; machines and money if some are rented."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    paid = any(line.machine for line in lines)
    heads = ["stage", "state", "jobs", "on", "time", "USD"]
    heads = [head for head in heads if paid or head not in ("on", "USD")]
    for head in heads:
        shown.add_column(head, justify="right" if head in ("jobs", "time", "USD") else "left")
    shown.add_column("why", overflow="fold")
    for line in lines:
        if not line.jobs:
            shown.add_row(line.stage, "fresh", style="dim")
            continue
        most = "<= " if line.most else ""
        row = {
            "stage": line.stage,
            "state": "stale",
            "jobs": str(line.jobs),
            "on": line.machine,
            "time": most + duration(line.seconds),
            "USD": f"{most}{line.cost_usd:.2f}" if line.cost_usd else "",
        }
        shown.add_row(*(row[head] for head in heads), line.why)
    return shown


def conclusion(lines: "list[Line]") -> list[str]:
    """Return the sentences below the table: totals, and what is left alone."""
    stale = [line for line in lines if line.jobs]
    if not stale:
        return ["Nothing to do: everything is up to date."]
    known = sum(line.seconds for line in stale if line.seconds is not None and not line.most)
    unknown = [line.stage for line in stale if line.seconds is None]
    total = f"{sum(line.jobs for line in stale)} jobs"
    if unknown:
        total += f", not yet timed: {', '.join(unknown)}"
    if known:
        total += f"{'; the others' if unknown else ','} about {duration(known)} of work"
        total += ", judged by the last run"
        total += " and the speed of GPUs" * any(line.machine for line in stale)
    cost = sum(line.cost_usd for line in stale if not line.most)
    if cost:
        total += f"; about ${cost:.2f}"
    if limits := [line for line in stale if line.most]:
        total += (
            f"; and at most ${sum(line.cost_usd for line in limits):.2f} for what cannot be known "
            f"before it has run once: {', '.join(line.stage for line in limits)}"
        )
    sentences = [f"{total}."]
    trained = [line.stage for line in stale if line.stage in ("base", "mid", "sft")]
    kept = [
        line.stage + (f" (${line.cost_usd:.2f} saved)" if line.cost_usd else "")
        for line in lines
        if not line.jobs
    ]
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
