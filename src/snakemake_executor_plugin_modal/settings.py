"""The settings: each is ``--modal-<name>`` and, in a profile, ``modal-<name>``."""

import hashlib
import re
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import (  # type: ignore[import-untyped]
    ExecutorSettingsBase,
)

VOLUME = "snakemake"
"""Name of the Volume, if no other is set."""


def _listed(help_: str) -> list[str]:
    found: list[str] = field(default_factory=list, metadata={"help": help_, "nargs": "+"})
    return found


def _text(help_: str) -> str | None:
    found: str | None = field(default=None, metadata={"help": help_, "env_var": True})
    return found


# Snakemake reads the types of the fields, and of unions it knows only Optional.
# ruff: noqa: RUF009, UP045
@dataclass
class ExecutorSettings(ExecutorSettingsBase):  # type: ignore[misc]
    """Which jobs run on Modal, in what, and for how much."""

    app: Optional[str] = _text(
        "Start of the name of the Modal app that runs the jobs (default: snakemake-<prefix>)."
    )
    volume: Optional[str] = _text(
        "Modal Volume, of version 2, that holds the working directory; made if there is none"
        " (default: snakemake)."
    )
    prefix: Optional[str] = _text(
        "Folder on the Volume. Two working directories must not share one (default: name of the"
        " working directory and a digest of its place)."
    )
    environment: Optional[str] = _text(
        "Modal environment (default: that of your Modal configuration)."
    )
    region: list[str] = _listed(
        "Regions that jobs may run in, such as us-east; costs more (default: any)."
    )
    requirements: Optional[str] = _text(
        "Requirements file that pip installs in the image (default: requirements.txt, if there is"
        " one). Snakemake is added if it is not among them."
    )
    python: Optional[str] = _text(
        "Python of the image, such as 3.11; must be the minor version that runs Snakemake, which"
        " is the default."
    )
    packages: list[str] = _listed("Debian packages that apt installs in the image.")
    before: Optional[str] = _text(
        "Shell command that runs in the container before each job, such as"
        " 'pip install --no-deps -e .'."
    )
    env: list[str] = _listed(
        "KEY=VALUE pairs for the environment of jobs. Not for secrets: name those in the"
        " workflow's envvars, and they travel as Modal secrets."
    )
    extra_files: list[str] = _listed(
        "Files and folders that jobs read though no rule declares them; uploaded if they are"
        " there, whatever git ignores."
    )
    rules: list[str] = _listed(
        "Rules to run on Modal beside those with a gpu resource; * and ? are wildcards."
    )
    gpu_fallbacks: list[str] = _listed(
        "GPU models to take, in that order, where the one in gpu_model is not free."
    )
    detach: bool = field(
        default=False,
        metadata={
            "help": "Leave jobs running at Ctrl-C; the next run of Snakemake takes them up again."
        },
    )
    max_usd: Optional[float] = field(
        default=None,
        metadata={
            "help": "Refuse to start when what is to run on Modal could cost more, in USD: the sum"
            " of runtime x rates.",
            "env_var": True,
        },
    )


def prefix(chosen: str | None) -> str:
    """Return the folder on the Volume, by default one that no other working directory has.

    Raises:
        WorkflowError: The name is none that Modal takes.
    """
    if chosen is None:
        here = f"{socket.gethostname()}:{Path.cwd()}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path.cwd().name)[:24].strip("-.") or "work"
        return f"{name}-{hashlib.sha256(here.encode()).hexdigest()[:8]}"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", chosen):
        raise WorkflowError(
            f"modal-prefix is {chosen!r}; it must be one name of letters, digits, '.', '_' and '-'."
        )
    return chosen


def environment(pairs: list[str]) -> dict[str, str]:
    """Return the variables of ``env``.

    Raises:
        WorkflowError: One of them is no KEY=VALUE.
    """
    for pair in pairs:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", pair):
            raise WorkflowError(f"modal-env has {pair!r}; it must be KEY=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def python(chosen: str | None) -> None:
    """Refuse another Python than this.

    Raises:
        WorkflowError: It is another.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if chosen is not None and str(chosen) != here:
        raise WorkflowError(
            f"modal-python is {chosen}, but Snakemake runs in Python {here}: what is sent to the"
            " container can only be read by the same minor version. Set it to"
            f" {here}, or run Snakemake in Python {chosen}."
        )
