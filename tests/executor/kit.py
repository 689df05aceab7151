"""What the end-to-end tests of the Modal executor share: a small workflow, and Snakemake in it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from modal_server import Cloud
from waiting import eventually

MINI = Path(__file__).parent / "mini"
SOURCE = Path(__file__).parents[2] / "src"
TOKEN = "a word that nobody may read"
MODEL = "4 steps on ['house', 'river', 'tree']\n"
"""What the rule train writes, wherever it runs and however often it begins."""


def clean() -> dict[str, str]:
    """Return this process's environment without an account or settings of Modal."""
    private = ("MODAL_", "SNAKEMAKE_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    return {**own, "PYTHONPATH": str(SOURCE), "MINI_TOKEN": TOKEN}


@dataclass
class Run:
    """A Snakemake that runs, in a process group of its own."""

    process: subprocess.Popen[bytes]
    output: Path
    """What it says, on both streams."""

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def says(self, pattern: str) -> None:
        """Wait until a line matches ``pattern``."""
        __tracebackhide__ = True

        def said() -> bool:
            found = re.search(pattern, self.said, re.MULTILINE)
            assert found or self.process.poll() is None, f"{pattern!r} not in:\n{self.said}"
            return found is not None

        try:
            eventually(pattern, said)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said}") from None

    def ends(self, status: int = 0) -> str:
        """Return what it said, once it has ended with ``status``."""
        __tracebackhide__ = True
        try:
            found = self.process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"does not end:\n{self.said}") from None
        assert found == status, self.said
        for noise in ("Traceback", "never retrieved", "was destroyed"):
            assert noise not in self.said, self.said
        return self.said

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.wait()


@dataclass
class Mini:
    """A copy of the small workflow, and the cloud that it may use."""

    root: Path
    cloud: Cloud
    runs: list[Run] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def remote(self) -> Path:
        """What is committed on the volume."""
        return self.cloud.volume("tests") / "mini"

    @property
    def gate(self) -> Path:
        return self.root.parent / "gate"

    @property
    def account(self) -> dict[str, str]:
        """The environment of somebody who may use the cloud."""
        return {**clean(), **self.cloud.environment}

    def shut(self) -> None:
        """Let no training go on after its second step, until `open`."""
        self.gate.mkdir(exist_ok=True)

    def open(self) -> None:
        (self.gate / "open").touch()

    def here(self, *options: str) -> Run:
        """Start Snakemake with nothing but this machine."""
        return self._start("--cores", "2", *options, environment=clean())

    def start(self, *options: str, environment: dict[str, str] | None = None) -> Run:
        """Start Snakemake with the executor; ``environment`` is put over the usual one."""
        values = ["COMMIT=sync .", f"GATE={self.gate}"] if self.gate.exists() else []
        return self._start(
            *("--executor", "modal", "--jobs", "100", "--cores", "2"),
            *(("--modal-env", *values) if values else ()),
            *("--modal-volume", "tests", "--modal-prefix", "mini"),
            *options,
            environment={**self.account, **(environment or {})},
        )

    def profiled(self, profile: str) -> Run:
        """Start Snakemake with a profile and nothing else."""
        return self._start("--workflow-profile", profile, environment=self.account)

    def _start(self, *options: str, environment: dict[str, str]) -> Run:
        output = self.root.parent / f"said-{len(self.runs)}.txt"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *options],
                cwd=self.root,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.runs.append(Run(process, output))
        return self.runs[-1]

    def at_the_gate(self, *options: str) -> Run:
        """Start Snakemake and return once two steps of the training are saved on the volume."""
        self.shut()
        run = self.start(*options)
        run.says("step 2 of ")
        eventually("two steps on the volume", lambda: "2" in self.saved())
        return run

    def saved(self) -> list[str]:
        """Return the last step of each training whose state is on the volume."""
        return [path.read_text() for path in self.remote.glob("results/state/*/step")]

    def unlock(self) -> None:
        """Do what `snakemake --unlock` does after a kill, without taking a second for it."""
        shutil.rmtree(self.root / ".snakemake" / "locks")

    def full_log(self) -> str:
        """Return the one full log of a call that Snakemake keeps here."""
        (path,) = (self.root / ".snakemake" / "log" / "modal").glob("*.log")
        return path.read_text(encoding="utf-8")


@contextmanager
def copy_of_mini(folder: Path) -> Iterator[Mini]:
    """Copy the small workflow and start a cloud, both in ``folder``; end all that is left."""
    shutil.copytree(MINI, folder / "project", ignore=shutil.ignore_patterns("__pycache__"))
    with Cloud(folder / "cloud") as cloud:
        mini = Mini(folder / "project", cloud)
        try:
            yield mini
        finally:
            for run in mini.runs:
                if run.process.poll() is None:
                    run.kill()
