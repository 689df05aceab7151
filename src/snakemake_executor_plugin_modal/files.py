"""Which files a job needs on Modal, and the digest of what it does with them."""

import fnmatch
import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from .hardware import Hardware
from .ledger import key

KEY_NAMES = (
    *(".env", ".env.*", ".netrc", ".pypirc", ".modal.toml", "*.key", "*.pem", "*.p12", "*.pfx"),
    *("*.keystore", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
)
"""Names of files that hold keys."""

KEY_WORDS = re.compile(r"(^|[._-])(tokens?|secrets?|credentials?|passwords?)([._-]|$)", re.I)
"""Words in the names of data files that hold keys; code may well be called so."""

KEY_FORMATS = frozenset({"", ".json", ".yaml", ".yml", ".toml", ".txt", ".ini", ".cfg", ".csv"})

KEY_VARIABLES = re.compile(r"_(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)(_FILE|_PATH)?$")
"""Environment variables that may name a file with a key."""

PASSING = {"pipe", "service"}
"""Flags of outputs that are gone when the job is."""

BRIEF = PASSING | {"temp", "nodelocal"}
"""Flags of outputs that may be gone when the group is."""


@dataclass
class Order:
    """All that is known of a job before it goes to Modal; plain values only."""

    rule: str
    label: str
    """Rule and wildcards, for people."""
    key: str
    command: str
    hardware: Hardware
    most: float
    """USD it can cost at most."""
    told: str
    """Digest of rule, wildcards, params and code, as far as Snakemake's triggers count them."""
    inputs: list[str]
    outputs: list[str]
    folders: frozenset[str]
    """Those of ``outputs`` that are folders."""
    extras: list[str]
    """Logs, benchmarks and the like: fetched if they are there, also after a failure."""
    secrets: dict[str, str] = field(default_factory=dict)


def sources(workflow: Any) -> tuple[list[str], list[str]]:
    """Return the files that describe the workflow, and those held back since they hold keys.

    Always: what Snakemake has read. With git: all it tracks, and what is new but not ignored.
    Without: scripts and what lies beside them. Never: .git, .snakemake, and what a job makes.

    Raises:
        WorkflowError: The Snakefile or a config file lies outside the working directory.
    """
    declared = [inside(str(workflow.main_snakefile), "The Snakefile")]
    declared += [inside(str(path), "A config file") for path in workflow.configfiles]
    included = [str(each.get_path_or_uri(secret_free=True)) for each in workflow.included]
    declared += [inside(path, "An included file") for path in included if Path(path).is_file()]
    found = _git()
    if found is None:
        folders = {os.path.relpath(path.parent) for path in map(_script, workflow.rules) if path}
        found = expanded(sorted(path for path in folders if not path.startswith("..")))
    made = {str(path) for job in workflow.dag.jobs for path in job.output}
    named = {os.path.realpath(value) for name, value in os.environ.items() if _names_key(name)}
    taken, held = set(declared), []
    for path in found:
        if not path or path in taken or not Path(path).is_file() or _made(path, made):
            continue
        if secret(path) or os.path.realpath(path) in named:
            held.append(path)
        else:
            taken.add(path)
    return sorted(taken), sorted(held)


def secret(path: str) -> bool:
    """Tell whether a file, by its name, holds a key.

    Example:
        >>> [secret(name) for name in ("a/.env", "token.json", "tokenizer.json", "token.py")]
        [True, True, False, False]
    """
    name = PurePosixPath(path).name
    if any(fnmatch.fnmatch(name.lower(), pattern) for pattern in KEY_NAMES):
        return not name.endswith(".pub")
    return PurePosixPath(name).suffix.lower() in KEY_FORMATS and bool(KEY_WORDS.search(name))


def inside(path: str, what: str) -> str:
    """Return ``path`` relative to the working directory.

    Raises:
        WorkflowError: It lies outside, where a job on Modal cannot see it.
    """
    relative = os.path.relpath(path)
    if relative == ".." or relative.startswith("../"):
        raise WorkflowError(
            f"{what} lies outside the working directory: {path}. A job on Modal sees only what is"
            " below it: start Snakemake in a folder that holds it, or move the file."
        )
    return relative


def order(job: Any, workflow: Any, command: str, hardware: Hardware, most: float) -> Order:
    """Return the order for ``job``, which may be a group of jobs.

    Raises:
        WorkflowError: One of its files lies outside the working directory.
    """
    jobs = sorted(job.jobs if job.is_group() else [job], key=_identity)
    name = "+".join(dict.fromkeys(each.rule.name for each in jobs))
    wildcards = [str(value) for each in jobs for value in each.wildcards_dict.values()]
    inputs = [path for path in job.input if not getattr(path, "is_storage", False)]
    made = [path for each in jobs for path in each.output]
    # What a group makes for itself, or passes on, may be gone at its end.
    brief = BRIEF if job.is_group() else PASSING
    outputs = [path for path in made if not brief & getattr(path, "flags", {}).keys()]
    maybe = [path for path in made if path not in outputs and not PASSING & path.flags.keys()]
    benchmarks = [str(each.benchmark) for each in jobs if each.benchmark]
    placed = [inside(str(path), f"An output of {name}") for path in outputs]
    folders = {str(path) for path in outputs if getattr(path, "is_directory", False)}
    return Order(
        rule=name,
        label=" ".join([name, *dict.fromkeys(wildcards)]),
        key=key(name, wildcards, placed),
        command=command,
        hardware=hardware,
        most=most,
        told=_told(jobs, {trigger.item_to_choice() for trigger in workflow.rerun_triggers}),
        inputs=[inside(str(path), f"An input of {name}") for path in inputs],
        outputs=placed,
        folders=frozenset(os.path.relpath(path) for path in folders),
        extras=[inside(str(path), f"A file of {name}") for path in [*job.log, *benchmarks, *maybe]],
    )


def spec(order: Order, digest: Callable[[str], str]) -> str:
    """Return the digest of all that decides what comes out of a job.

    Args:
        order: The job.
        digest: Returns the digest of a file's contents.
    """
    whole = hashlib.sha256(f"{order.told}\0{order.hardware!r}".encode())
    for path in sorted(expanded(order.inputs)):
        whole.update(f"\0{path}\0{digest(path)}".encode())
    return whole.hexdigest()


def expanded(paths: Iterable[str]) -> list[str]:
    """Return the files among and below ``paths``; what is not there is left out."""
    found: list[str] = []
    walked: Iterable[tuple[str, list[str], list[str]]]
    for path in map(Path, paths):
        walked = os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]
        below = sorted(Path(folder, name) for folder, _, names in walked for name in names)
        found += [str(file) for file in below if file.is_file()]
    return found


def _identity(job: Any) -> list[str]:
    return [job.rule.name, *map(str, sorted(job.wildcards_dict.items()))]


def _told(jobs: Iterable[Any], triggers: set[str]) -> str:
    whole = hashlib.sha256()
    for job in jobs:
        parts = _identity(job)
        if "params" in triggers:
            parts += map(stable, job.non_derived_params)
        if "code" in triggers:
            parts.append(str(job.shellcmd))
            if path := _script(job.rule):
                parts.append(path.read_text(encoding="utf-8"))
        whole.update("\0".join(parts).encode() + b"\1")
    return whole.hexdigest()


def stable(value: object) -> str:
    """Return a text for a param that is the same in the next run."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(stable, value)))}}}"
    if isinstance(value, Mapping):
        return str(sorted((str(name), stable(item)) for name, item in value.items()))
    if isinstance(value, list | tuple):
        return str([stable(item) for item in value])
    return repr(value)


def _script(rule: Any) -> Path | None:
    """Return the script or notebook of ``rule``, if it has one and that is a file here."""
    name = rule.script or rule.notebook
    path = Path(str(rule.basedir.join(name).get_path_or_uri(secret_free=True))) if name else None
    return path if path and path.is_file() else None


def _git() -> list[str] | None:
    """Return what git tracks here or would track; None where there is no repository."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z", "."]
    try:
        listed = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return os.fsdecode(listed.stdout).split("\0")


def _made(path: str, made: set[str]) -> bool:
    parents = [str(parent) for parent in PurePosixPath(path).parents]
    return path.startswith(".snakemake/") or not made.isdisjoint([path, *parents])


def _names_key(variable: str) -> bool:
    return bool(KEY_VARIABLES.search(variable))
