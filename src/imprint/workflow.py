"""Snakemake inside this process: what it makes of options, and what it would run with them."""

import argparse
import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprint import recipe, yamlfile
from imprint.artifacts import storage_error
from imprint.errors import ConfigError, ImprintError
from imprint.settings import FILE, Settings, layered

VARIABLES = {
    "identity": "IDENTITY",
    "scale": "SCALE",
    "provider": "PROVIDER",
    "provider_model": "MODEL",
    "base_url": "URL",
    "conversations": "COUNT",
    "budget_usd": "BUDGET",
    "seed": "SEED",
}
"""What make calls the settings that can be given to it."""


@dataclass(frozen=True)
class Job:
    """A job that Snakemake would run."""

    stage: str
    reason: str
    """In Snakemake's words."""
    wildcards: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What it asks for: ``gpu``, ``gpu_model``, ``mem_mib``, ``runtime`` in minutes, ..."""
    threads: int = 1


class _Witness(logging.Filter):
    """Keeps the jobs and errors that Snakemake logs, and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []
        self.errors: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(record, "event", None)
        if getattr(event, "name", "") == "JOB_INFO":
            told = vars(record)
            asked = told.get("resources")
            self.jobs.append(
                Job(
                    stage=told.get("rule_name", ""),
                    reason=told.get("reason", ""),
                    wildcards=told.get("wildcards") or {},
                    resources=dict(asked.items()) if asked else {},
                    threads=told.get("threads") or 1,
                )
            )
        elif record.levelno >= logging.ERROR:
            self.errors.append(record.getMessage())
        return False


def dry_run(options: Sequence[str]) -> list[Job]:
    """Return the jobs that Snakemake would run with ``options``.

    Raises:
        ImprintError: Snakemake refuses to plan at all; its message is passed on.
    """
    # Jobs are shown with the threads that they ask for, not with those of this machine.
    dry = [*options, "--dry-run", "--nolock", "--cores", "1024"]
    return [job for job in run(dry) if job.stage in recipe.STAGES]


def run(options: Sequence[str]) -> list[Job]:
    """Run Snakemake in this process, silently; return the jobs that it ran or would run.

    Raises:
        ImprintError: It did not succeed; its message is passed on.
    """
    from snakemake import cli

    witness = _Witness()
    log = logging.getLogger("snakemake.logging")
    log.addFilter(witness)
    try:
        parser, arguments = _parsed(options)
        succeeded = cli.args_to_api(arguments, parser)
    finally:
        log.removeFilter(witness)
    if not succeeded:
        raise ImprintError("\n".join(witness.errors) or "Snakemake did not succeed.")
    return witness.jobs


def run_in_turn(calls: Sequence[Sequence[str]]) -> int:
    """Run Snakemake with the options of each call, up to the first that fails; return its status.

    Each runs in a fork of this process: to import Snakemake and its plugins takes longer than to
    find that there is nothing to do, and so it is done once.

    Raises:
        ImprintError: An option or a setting is wrong, or there is work and results/ is read-only.
    """
    from snakemake import cli
    from snakemake.exceptions import print_exception

    configured(calls[0])  # which loads the plugins
    fault = _unwritable(Path("results"))
    if fault and _have_work(calls):
        raise fault
    for options in calls:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            sys.argv = ["snakemake", *options]  # as its log shows it
            parser, arguments = _parsed(options)
            try:
                succeeded = cli.args_to_api(arguments, parser)
            except Exception as error:
                print_exception(error)
                succeeded = False
            sys.exit(0 if succeeded else 1)
        if status := _waited_for(child):
            return status
    return 0


def _waited_for(child: int) -> int:
    """Return the exit status of a process, as a shell counts it."""
    # A terminal tells both of Ctrl-C: what comes of it is for the child to say.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    end = signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, end)
    return status if status >= 0 else 128 - status


def _unwritable(folder: Path) -> Exception | None:
    """Return why nothing can be written into ``folder``; None if it can, or is not there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        return storage_error(folder, error)


def _have_work(calls: Sequence[Sequence[str]]) -> bool:
    """Tell whether any of ``calls`` would run a job; yes where Snakemake refuses to plan."""
    try:
        return any(dry_run(options) for options in calls)
    except ImprintError:
        return True


def executor(options: Sequence[str]) -> Any:
    """Return the settings of the executor for Modal; None if ``options`` lead to another."""
    from snakemake import cli

    _, arguments = _parsed(options)
    if arguments.executor != "modal":
        return None
    return cli.ExecutorPluginRegistry().get_plugin("modal").get_settings(arguments)


def configured(options: Sequence[str]) -> Settings:
    """Return the settings that the workflow would have with ``options``.

    Raises:
        ConfigError: One is wrong; the message says which file or option it comes from.
    """
    from snakemake import cli

    _, arguments = _parsed(options)
    paths = [FILE, *map(Path, arguments.configfile or [])]
    layers = [(path, yamlfile.load(path)[0]) for path in paths]
    for key, value in cli.parse_config(arguments.config).items():
        place = f"{VARIABLES[key]} on the command line" if key in VARIABLES else f"--config {key}"
        layers.append((Path(place), {key: value}))
    return layered(layers, root=Path(), check=recipe.check)


def spoken(options: Sequence[str]) -> list[str]:
    """Return ``options`` as words for make; what its targets do not take is left out.

    Example:
        >>> spoken(["--cores", "all", "--configfile", "my.yaml", "--config", "scale=d20"])
        ['CONFIG=my.yaml', 'SCALE=d20']
    """
    _, arguments = _parsed(options)
    told = _told(options)
    words = {"CONFIG": " ".join(map(str, arguments.configfile or []))}
    for key, _, value in (entry.partition("=") for entry in arguments.config or []):
        if key in VARIABLES:
            words[VARIABLES[key]] = value
    words["PROFILE"] = Path(told.workflow_profile or "").name
    words["CORES"] = told.cores or told.local_cores or ""
    usual = {"PROFILE": "default", "CORES": "all"}
    return [
        f"{name}={shlex.quote(value)}"
        for name, value in words.items()
        if value and value != usual.get(name)
    ]


def _parsed(options: Sequence[str]) -> tuple[Any, Any]:
    """Return Snakemake's parser, and what it makes of ``options`` and the profile they name.

    Raises:
        ImprintError: An option has a value that cannot be.
        SystemExit: There is no such option; Snakemake's words have been told.
    """
    from snakemake import cli
    from snakemake.exceptions import CliException

    said = io.StringIO()  # which profile it uses; or what is wrong
    try:
        with contextlib.redirect_stderr(said):
            _check(_told(options))
            parser, arguments = cli.parse_args(list(options))
    except SystemExit:
        sys.stderr.write(said.getvalue())
        raise
    except CliException as error:
        raise ImprintError(f"{error} Put that right and run again.") from None
    return parser, arguments


def _told(options: Sequence[str]) -> argparse.Namespace:
    """Return the options that Snakemake would take without a word, whatever they say."""
    parser = argparse.ArgumentParser("snakemake", add_help=False, allow_abbrev=False)
    parser.add_argument("--cores", "-c")
    parser.add_argument("--local-cores")
    parser.add_argument("--workflow-profile")
    return parser.parse_known_args(list(options))[0]


def _check(told: argparse.Namespace) -> None:
    """Refuse a number of cores with which nothing would ever run, and a profile that is not there.

    Raises:
        ConfigError: One of them is told.
    """
    from snakemake.cli import get_profile_dir

    for cores in (told.cores, told.local_cores):
        if cores is not None and not re.fullmatch("all|0*[1-9][0-9]*", cores):
            raise ConfigError(f"CORES is {cores or 'empty'}. Give a number from 1 on, or all.")
    name = told.workflow_profile
    if name in (None, "none"):
        return
    folder = Path("profiles")
    found = next((path for path in (Path(name), folder / name) if path.exists()), None)
    if found is None or not get_profile_dir(str(found)):
        folders = [path for path in folder.glob("*") if path.is_dir()]
        there = sorted(path.name for path in folders if get_profile_dir(str(path)))
        raise ConfigError(
            f"{name}: no profile, which is a folder with a config.yaml. "
            f"Choose one of {folder}: {', '.join(there)}."
        )
