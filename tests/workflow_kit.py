"""What the tests of the workflow share: copies of this project, and Snakemake to run in them."""

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parent.parent
PARTS = ("Snakefile", "rules", "workflow", "config", "profiles", "src", "pyproject.toml")
TEST = ("--configfile", "config/test.yaml")

FORKER = """
import json, os, sys, tempfile
from snakemake import cli
for line in sys.stdin:
    task = json.loads(line)
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            os.chdir(task["root"])
            sys.path.insert(0, os.path.join(task["root"], "src"))
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            try:
                cli.main(task["argv"])
            except SystemExit as leaving:
                sys.stdout.flush()
                os._exit(leaving.code if isinstance(leaving.code, int) else 1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        print(json.dumps([code, said.read()]), flush=True)
"""
"""Runs Snakemake in forks of itself: what it imports takes longer than most dry runs."""

WOULD = re.compile(r"^ {7}(\w+): ", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """A copy of this project, with results or without."""

    root: Path
    prefix: tuple[str, ...] = ()
    """Put before every command."""
    more: dict[str, str] = field(default_factory=dict)
    """Added to the environment."""

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "src"), **self.more}

    def command(self, *options: str, config: Sequence[str] = ()) -> list[str]:
        """Return the command that runs Snakemake on the configuration for tests."""
        values = ["--config", *config] if config else []
        start = [*self.prefix, sys.executable, "-m", "snakemake"]
        return [*start, *options, "--cores", "2", *TEST, *values]

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*options),
            cwd=self.root,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def snakemake(
        self, *options: str, config: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*options, config=config))

    def imprint(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = "from imprint.cli import main; main()"
        return self._run([sys.executable, "-c", program, *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment, text=True, capture_output=True
        )

    def would_run(self, *options: str, config: Sequence[str] = ()) -> Counter[str]:
        """Return how many jobs of each rule would run."""
        words = self.command("--dry-run", *options, config=config)
        task = {"root": str(self.root), "argv": words[words.index("snakemake") + 1 :]}
        server = forker()
        assert server.stdin and server.stdout
        print(json.dumps(task), file=server.stdin, flush=True)
        code, said = json.loads(server.stdout.readline())
        assert code == 0, said
        found = Counter(WOULD.findall(said))
        assert found or "Nothing to be done" in said, said
        return found

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace the first ``old`` in a file, which has to be there."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} no longer holds {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")


@cache
def forker() -> subprocess.Popen[str]:
    """Return a process that runs Snakemake for each line it is given; it ends with this one."""
    server = subprocess.Popen(
        [sys.executable, "-c", FORKER], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(server.communicate)  # ends its input, and so its loop
    return server


def copied(root: Path) -> Project:
    """Return a copy of this project in ``root``, without results."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            root.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, root / part)
    return Project(root)


def built(base: Path) -> Project:
    """Return the one copy of this project under ``base`` that has run, and run it if none has."""
    with FileLock(base / "built.lock"):
        project, done = Project(base / "built"), base / "built.done"
        if not done.exists():
            shutil.rmtree(project.root, ignore_errors=True)
            ran = copied(project.root).snakemake()
            assert ran.returncode == 0, ran.stdout + ran.stderr
            done.touch()
    return project


def copy_of(project: Project, root: Path) -> Project:
    """Return a copy of ``project`` in ``root``, with all dates."""
    shutil.copytree(project.root, root, ignore=shutil.ignore_patterns("__pycache__"))
    return Project(root)
