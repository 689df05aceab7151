"""The chat on Modal: a class that Modal starts when somebody asks, and stops a while after.

Nothing runs, and nothing costs, while nobody talks to it. What it needs lies in a folder of the
Volume named after the checkpoint's hash, so that a new model is a new deployment.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal

from imprint import artifacts
from imprint.errors import ArtifactError

FOLDER = "/model"
"""Where the files are in the container; laid out as in the project."""
CHECKPOINT = Path("results/sft.pt")
TOKENIZER = Path("results/tokenizer/tokenizer.json")
EVALUATION = Path("results/eval/sft.json")
"""Says which questions the model answers, and in which file its identity is."""

IDLE_S = 300
"""Until a container that nobody talks to is stopped. It is paid for as long."""
INPUTS = 192
"""Requests that a container takes at a time: 64 are answered, 64 wait, the others are told to come
again, and /health has room as well."""
LARGE_BYTES = 200_000_000
"""From this size of a checkpoint on a GPU is worth it: d12 has 0.7 GB, tiny 8 MB."""
KEY = "IMPRINT_API_KEY"
"""Variable with the key that clients have to show, if there is one; travels as a secret."""
GPU = "L4"
"""The cheapest that calculates in bfloat16; its 24 GB hold any scale."""


class Chat:
    """A container: loads the model, answers until nobody asks."""

    @modal.enter(snap=True)
    def load(self) -> None:
        """Read the model into memory. Modal keeps that in a snapshot: later starts skip it."""
        from imprint.engine import Engine

        os.chdir(FOLDER)
        self.engine = Engine.load(CHECKPOINT, device="cpu")

    @modal.enter(snap=False)
    def wake(self) -> None:
        """Move the model to the GPU, which a snapshot does not hold."""
        import torch

        if torch.cuda.is_available():
            self.engine.model.to("cuda")

    @modal.asgi_app()
    def web(self) -> Any:
        """Return the API and the page."""
        from imprint import serve

        return serve.app(self.engine, card=serve.card(CHECKPOINT))


@dataclass(frozen=True)
class Target:
    """Where a chat is deployed."""

    name: str
    """Of the app; part of its address."""
    volume: str
    environment: str | None = None
    region: tuple[str, ...] = ()


def needed() -> Iterator[Path]:
    """Yield the files of the project in this folder that the chat needs or can use.

    Raises:
        ArtifactError: The checkpoint or its tokenizer is missing.
    """
    for path in (CHECKPOINT, TOKENIZER):
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file. Run `make identity` to train the model.")
        yield path
    for path in (CHECKPOINT.with_suffix(".json"), EVALUATION):
        if path.is_file():
            yield path
    if EVALUATION.is_file():
        identity = Path(artifacts.read_json(EVALUATION)["about"]["file"])
        if identity.is_file() and identity.resolve().is_relative_to(Path.cwd()):
            yield identity


def machine() -> tuple[str, float, int]:
    """Return what a container gets for the checkpoint: GPU or nothing, cores, memory in MiB."""
    size = CHECKPOINT.stat().st_size
    memory = 2048 + 3 * (size >> 20)  # torch, the weights as read and as used, the cache
    return GPU if size > LARGE_BYTES else "", 2.0, memory


def deploy(target: Target, image: modal.Image) -> str:
    """Deploy the chat of the project in this folder; return its address.

    Args:
        target: Where to.
        image: With the packages of the project; its code is added.

    Raises:
        ArtifactError: The checkpoint or its tokenizer is missing.
        modal.exception.Error: Modal refuses.
    """
    files = list(needed())
    gpu, cores, memory = machine()
    volume = modal.Volume.from_name(
        target.volume, environment_name=target.environment, create_if_missing=True, version=2
    )
    folder = f"/{target.name}/{artifacts.sha256(CHECKPOINT)[:12]}"
    with volume.batch_upload(force=True) as upload:  # sends only the blocks that are not there yet
        for path in files:
            upload.put_file(path, f"{folder}/{path.as_posix()}")
    app = modal.App(target.name, include_source=False)
    key: dict[str, str | None] = {KEY: os.environ[KEY]} if os.environ.get(KEY) else {}
    app.cls(
        image=image.add_local_python_source("imprint", ignore=_not_needed),
        secrets=[modal.Secret.from_dict(key)] if key else [],
        volumes={FOLDER: volume.with_mount_options(sub_path=folder, read_only=True)},
        gpu=gpu or None,
        cpu=cores,
        memory=memory,
        max_containers=1,  # the most that can be spent at a time
        scaledown_window=IDLE_S,
        enable_memory_snapshot=True,
        region=list(target.region) or None,
    )(modal.concurrent(max_inputs=INPUTS)(Chat))
    app.deploy(environment_name=target.environment)
    for entry in volume.listdir(f"/{target.name}"):
        if f"/{entry.path.lstrip('/')}" != folder:  # a model before this one
            volume.remove_file(entry.path, recursive=True)
    found = modal.Cls.from_name(target.name, "Chat", environment_name=target.environment)
    return str(found().web.get_web_url())


def remove(target: Target) -> bool:
    """Stop the chat and delete its files from the Volume; tell whether there was one.

    Raises:
        modal.exception.Error: Modal refuses.
    """
    try:
        modal.App.lookup(target.name, environment_name=target.environment)
    except modal.exception.NotFoundError:
        return False
    stop = [sys.executable, "-m", "modal", "app", "stop", target.name, "--yes"]
    chosen = ["--env", target.environment] if target.environment else []
    done = subprocess.run([*stop, *chosen], capture_output=True, text=True)
    if done.returncode:
        raise modal.exception.Error(done.stderr.strip() or done.stdout.strip())
    volume = modal.Volume.from_name(target.volume, environment_name=target.environment, version=2)
    with contextlib.suppress(modal.exception.NotFoundError, FileNotFoundError):
        volume.remove_file(f"/{target.name}", recursive=True)
    return True


def _not_needed(path: Path) -> bool:
    return path.suffix not in (".py", ".html")
