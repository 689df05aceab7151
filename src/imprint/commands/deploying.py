"""The chat on Modal: ``imprint deploy`` and ``imprint undeploy``."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imprint.commands import FORWARD
from imprint.errors import ConfigError, ImprintError

if TYPE_CHECKING:
    from imprint.serve.cloud import Target

app = typer.Typer()

Name = Annotated[str, typer.Option(help="Name of the app at Modal, and part of its address.")]
NAME = "imprint-chat"

SET_UP = (
    "Modal does not know who you are. Run `.venv/bin/modal setup` once, or set MODAL_TOKEN_ID and "
    "MODAL_TOKEN_SECRET (modal.com/settings/tokens), and run again."
)


@app.command(context_settings=FORWARD)
def deploy(context: typer.Context, name: Name = NAME) -> None:
    """Put the chat with results/sft.pt on Modal, and print its address.

    Options are passed on to Snakemake; what its profile says of volume, environment and region
    holds here as well: imprint deploy --workflow-profile profiles/modal
    """
    from imprint import workflow
    from imprint.serve import cloud
    from snakemake_executor_plugin_modal import image, money

    chosen = workflow.executor(["--executor", "modal", *context.args])
    files = list(cloud.needed())
    with explained():
        size = sum(path.stat().st_size for path in files) / 1e6
        typer.echo(
            f"Deploying {name}: {len(files)} files, {size:,.1f} MB, of which only what Modal has "
            "not got is sent. The first time it builds an image as well, which takes minutes ...",
            err=True,
        )
        built = image.image(Path("requirements.txt"), tuple(chosen.packages))
        address = cloud.deploy(target(name, chosen), built)
    gpu, cores, memory = cloud.machine()
    rate = money.rate(gpu, cores, memory)
    minutes = cloud.IDLE_S // 60
    typer.echo(address)
    typer.echo(
        f"Nobody there, nothing to pay. While somebody talks, and {minutes} minutes after: about "
        f"${rate:.2f} an hour ({gpu or 'no GPU'}; rates of {money.RATES_DATE}). Take it away again "
        "with `make undeploy`.",
        err=True,
    )
    if not os.environ.get(cloud.KEY):
        typer.echo(
            f"Whoever knows the address can use it. To ask for a key, set {cloud.KEY} and deploy "
            "again.",
            err=True,
        )


@app.command(context_settings=FORWARD)
def undeploy(context: typer.Context, name: Name = NAME) -> None:
    """Take the chat and its copy of the model away from Modal."""
    from imprint import workflow
    from imprint.serve import cloud

    there = target(name, workflow.executor(["--executor", "modal", *context.args]))
    with explained():
        if not cloud.remove(there):
            raise ImprintError(f"No chat named {name} is at Modal. `modal app list` shows what is.")
    typer.echo(f"{name} is gone.")


def target(name: str, chosen: Any) -> "Target":
    """Return where the chat goes by the settings of the executor, its own defaults included."""
    from imprint.serve.cloud import Target
    from snakemake_executor_plugin_modal.settings import VOLUME

    return Target(
        name,
        volume=chosen.volume or VOLUME,
        environment=chosen.environment,
        region=tuple(chosen.region),
    )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what Modal refuses into an ``ImprintError``."""
    from modal import exception

    try:
        yield
    except exception.AuthError as error:
        raise ConfigError(f"{SET_UP} ({error})") from None
    except (exception.Error, ConnectionError) as error:
        raise ImprintError(f"Modal: {error}") from error
