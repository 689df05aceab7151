"""Results from elsewhere, or from long ago: ``imprint verify`` and ``imprint adopt``."""

from pathlib import Path
from typing import Annotated

import typer

from imprint.commands import FORWARD
from imprint.errors import ArtifactError

app = typer.Typer()

Results = Annotated[Path, typer.Option(help="Folder of the results.", file_okay=False)]


@app.command()
def verify(results: Results = Path("results")) -> None:
    """Compute every hash again and compare it with the manifests."""
    from imprint import ledger

    found = list(ledger.manifests(results))
    if not found:
        raise ArtifactError(f"{results}: no manifest here. Run `make identity` to build results.")
    faults = [fault for manifest in found for fault in ledger.differences(manifest)]
    if faults:
        raise ArtifactError(
            "\n".join([*dict.fromkeys(faults), "Delete what differs and run again."])
        )
    files = {name for manifest in found for name in [*manifest.outputs, *manifest.inputs]}
    away = {name for manifest in found for name in ledger.elsewhere(manifest)}
    typer.echo(f"{len(files - away)} files are what {len(found)} manifests say.")
    if away:
        typer.echo(f"{len(away)} pieces of corpus and tokens stayed where they were made.")


@app.command(context_settings=FORWARD)
def adopt(context: typer.Context) -> None:
    """Take results/ as built, after checking them: for a copy without Snakemake's own notes.

    What its manifest does not vouch for, or what other settings made, is left to be built again.
    Options are passed on to Snakemake: imprint adopt --config scale=tiny
    """
    from imprint import ledger, workflow
    from imprint.artifacts import digest
    from imprint.identity import load

    results = Path("results")
    settings = workflow.configured(context.args)
    who = digest(load(Path(settings.identity)).model_dump())
    faults = ledger.verdict(results, settings, who)
    taken = [stage for stage, speaks_against in faults.items() if not speaks_against]
    if taken:
        # Forced, or what has good dates by chance would keep no record of params and contents,
        # and a later change would go unnoticed.
        paths = [str(path) for path in ledger.targets(results, taken, settings)]
        workflow.run([*paths, *context.args, "--touch", "--forceall"])
    typer.echo(f"Taken as built: {', '.join(taken) or 'nothing'}.")
    for stage, speaks_against in faults.items():
        if speaks_against:
            typer.echo(f"To be built: {stage} ({'; '.join(speaks_against[:3])}).")
