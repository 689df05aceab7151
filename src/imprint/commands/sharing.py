"""Give the model to others: ``imprint push``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from imprint.artifacts import read_json, sha256
from imprint.errors import ArtifactError, ConfigError, ImprintError

app = typer.Typer()

EDITABLE = "README.md"
"""The file that a person may change between export and push."""


@app.command()
def push(
    repo: Annotated[str, typer.Argument(help="Name on the hub: owner/name, or name for yours.")],
    export: Annotated[
        Path, typer.Option(help="The folder that `make export` wrote.", file_okay=False)
    ] = Path("results/export"),
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read it, if it is new.")
    ] = False,
) -> None:
    """Upload the export to the Hugging Face hub, with the token in HF_TOKEN; private if it is new.

    HF_ENDPOINT names another hub.
    """
    files = exported(export)
    from imprint.sources.catalog import endpoint

    hub, token = endpoint(), os.environ.get("HF_TOKEN", "").strip()
    tokens = f"Make one that may write at {hub}/settings/tokens and put it in the environment."
    if not token:
        raise ConfigError(f"HF_TOKEN is not set. {tokens}")
    # Over Xet, its newer way to upload, the client would also tell how fast this machine is.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi(endpoint=hub, token=token, library_name="imprint")
    try:
        url = api.create_repo(repo, private=not public, exist_ok=True)
        told = [CommitOperationAdd(path.name, path) for path in files]
        api.create_commit(url.repo_id, told, commit_message="Export of imprint")
        private = api.repo_info(url.repo_id).private
    except HFValidationError as error:
        raise ConfigError(f"{repo}: no name for a repository ({error}). Use owner/name.") from error
    except HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or "no reason given"
        if status == 401:
            raise ConfigError(f"HF_TOKEN: {hub} does not accept it. {tokens}") from error
        if status == 403:
            raise ConfigError(f"HF_TOKEN: may not write to {repo} ({said}). {tokens}") from error
        raise ImprintError(
            f"{repo}: {hub} answers {status} ({said}). What is uploaded stays; try again later."
        ) from error
    except (httpx2.TransportError, ConnectionError) as error:
        raise ImprintError(
            f"{hub}: cannot be reached ({error}). Check the network, and HF_ENDPOINT if it is set."
        ) from error
    except ValueError as error:  # what the client makes of a refused head of the card
        reason = " ".join(str(error).split())
        raise ImprintError(
            f"{export / EDITABLE}: {hub} refuses it ({reason}). Mend the lines between the ---."
        ) from error
    typer.echo(f"{url} ({'private' if private else 'public'})")


def exported(folder: Path) -> list[Path]:
    """Return the files of an export, which are what its manifest says; the card may be edited.

    Raises:
        ArtifactError: There is no export, or a file of it is missing or has changed.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ArtifactError(f"{folder}: holds no export. Run `make export` to write one.")
    files = []
    for name, wanted in read_json(manifest)["outputs"].items():
        path = folder / Path(name).name
        if not path.is_file() or (path.name != EDITABLE and sha256(path) != wanted):
            fact = "has changed since it was written" if path.is_file() else "is missing"
            raise ArtifactError(f"{path}: {fact}. Run `make export` to write it again.")
        files.append(path)
    return files
