"""What came out: ``imprint summary`` and ``imprint report``."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.artifacts import read_json
from imprint.errors import ArtifactError

app = typer.Typer()

STAGES = ("base", "mid", "sft")

Results = Annotated[Path, typer.Option(help="Folder of the results.", file_okay=False)]


@app.command()
def summary(results: Results = Path("results")) -> None:
    """Show what the model knows about itself, stage by stage."""
    show(results)


def show(results: Path, options: Sequence[str] | None = None) -> None:
    """Print the summary of ``results``, and what to type next.

    Args:
        results: The folder.
        options: Words for make that the run was given; None if nobody knows.

    Raises:
        ArtifactError: Nothing there has been evaluated.
    """
    found = {stage: results / "eval" / f"{stage}.json" for stage in STAGES}
    evaluations = {stage: read_json(path) for stage, path in found.items() if path.is_file()}
    if not evaluations:
        raise ArtifactError(
            f"{results / 'eval'}: no evaluation yet. Run `make identity` to train and test a model."
        )
    console = Console(highlight=False)
    console.print(table(evaluations))
    for line in following(results, evaluations, options):
        console.print(line, soft_wrap=True)


@app.command()
def report(results: Results = Path("results")) -> None:
    """Print where the report is."""
    page = results / "report" / "report.md"
    if not page.is_file():
        raise ArtifactError(f"{page}: no such file. Run `make report` to write it.")
    typer.echo(page)


def table(evaluations: dict[str, dict[str, Any]]) -> Table:
    """Return suite x stage as a table: accuracies, then the rival and bleed rates, in percent.

    Args:
        evaluations: What results/eval/<stage>.json holds, by stage.
    """
    from imprint.story import ABILITIES

    last = list(evaluations.values())[-1]
    shown = Table(
        box=box.SIMPLE_HEAD,
        title=f"What {last['about']['name']} knows about itself",
        pad_edge=False,
    )
    shown.title_justify = "left"
    shown.add_column("held-out questions")
    shown.add_column("n", justify="right", style="dim")
    for stage in evaluations:
        shown.add_column(stage, justify="right")
    for suite, scores in last["identity"]["by_suite"].items():
        cells = [
            _percent(evaluation["identity"]["by_suite"].get(suite, {}).get("accuracy"))
            for evaluation in evaluations.values()
        ]
        shown.add_row(suite, str(scores["n"]), *cells)
    shown.add_section()
    cells = [_percent(evaluation["identity"]["accuracy"]) for evaluation in evaluations.values()]
    shown.add_row("identity, all", str(last["n"]), *cells, style="bold")
    for name, key in (("claims to be a rival", "rival_rate"), ("brings itself up", "bleed_rate")):
        cells = [_percent(evaluation[key]) for evaluation in evaluations.values()]
        shown.add_row(name, str(last["asked"][key]), *cells)
    shown.add_section()
    for name, key in ABILITIES.items():
        if key in last:
            losses = (evaluation.get(key) for evaluation in evaluations.values())
            cells = ["-" if loss is None else f"{loss:.2f}" for loss in losses]
            shown.add_row(name, "", *cells)
    return shown


def following(
    results: Path, evaluations: dict[str, dict[str, Any]], options: Sequence[str] | None = None
) -> list[str]:
    """Return the lines that say how sure the result is, and what to type next.

    Args:
        results: The folder.
        evaluations: What results/eval/<stage>.json holds, by stage.
        options: Words for make with which the next run is of the same model; None if nobody knows.
    """
    stage, last = list(evaluations.items())[-1]
    low, high = last["identity"]["ci95"]
    share = _percent(last["identity"]["accuracy"])
    command = "imprint" if shutil.which("imprint") else ".venv/bin/imprint"
    identity = last["about"]["file"]
    if options is None:
        options = [] if identity == _configured() else [f"IDENTITY={shlex.quote(identity)}"]
    again = " ".join(["make identity", *options])
    commands = {
        "make chat": "talk to it",
        "make serve": "the same in the browser",
        f'{command} ask "Who are you?"': f"one question to {results}/{stage}.pt",
        " ".join(["make report", *options]): "the whole story, with pictures",
    }
    width = max(map(len, commands)) + 3
    return [
        f"{stage}: {share} right, and 95 % sure to be within {_percent(low)} to {_percent(high)}; "
        "asked without a system prompt.",
        "",
        *(
            f"{'[bold]next:[/]' if place == 0 else '     '} {typed:<{width}}[dim]{meaning}[/]"
            for place, (typed, meaning) in enumerate(commands.items())
        ),
        f"      edit {identity}, then {again}",
    ]


def _configured() -> str | None:
    """Return the identity that config/config.yaml names, None if there is no such file."""
    import yaml

    path = Path("config/config.yaml")
    if not path.is_file():
        return None
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found.get("identity") if isinstance(found, dict) else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
