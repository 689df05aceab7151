"""Snakemake inside this process: what it makes of options, and what it would run with them."""

import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imprint import yamlfile
from imprint.errors import ImprintError
from imprint.recipe import STAGES
from imprint.settings import Settings, merged, resolve


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
    return [job for job in run(dry) if job.stage in STAGES]


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
    """
    from snakemake import cli

    _parsed(calls[0])  # which loads the plugins
    for options in calls:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            sys.argv = ["snakemake", *options]  # as its log shows it
            cli.main(list(options))
            raise AssertionError("Snakemake leaves by itself")
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


def executor(options: Sequence[str]) -> Any:
    """Return the settings of the executor for Modal; None if ``options`` lead to another."""
    from snakemake import cli

    _, arguments = _parsed(options)
    if arguments.executor != "modal":
        return None
    return cli.ExecutorPluginRegistry().get_plugin("modal").get_settings(arguments)


def configured(options: Sequence[str]) -> Settings:
    """Return the settings that the workflow would have with ``options``."""
    from snakemake import cli

    _, arguments = _parsed(options)
    config: dict[str, Any] = yamlfile.load(Path("config/config.yaml"))[0]
    for path in arguments.configfile or []:
        config = merged(config, yamlfile.load(Path(path))[0])
    return resolve(merged(config, cli.parse_config(arguments.config)), root=Path())


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
            parser, arguments = cli.parse_args(list(options))
    except SystemExit:
        sys.stderr.write(said.getvalue())
        raise
    except CliException as error:
        raise ImprintError(f"{error} Put that right and run again.") from None
    return parser, arguments
