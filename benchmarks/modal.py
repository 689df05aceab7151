"""What the Modal executor adds to a job: python -m benchmarks.modal.

A chain of jobs that do nothing runs on this machine and through the plugin, with the tests' own
Modal on loopback, so without network, image builds or GPUs. The time between two outputs of the
chain is one job from Snakemake's choice to its result; the medians are compared. What is added is
mostly the second Snakemake in the container, shown beside it; the rest is the plugin: files there
and back, the call, its log.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
CHAIN = """
rule all:
    default_target: True
    input: "{last}.txt"

rule first:
    output: "0.txt"
    resources: gpu=1, gpu_model="T4"
    shell: "echo > {{output}}"

rule link:
    input: lambda wildcards: f"{{int(wildcards.n) - 1}}.txt"
    output: "{{n}}.txt"
    wildcard_constraints: n="[1-9][0-9]*"
    resources: gpu=1, gpu_model="T4"
    shell: "echo > {{output}}"
"""


@contextmanager
def loopback(folder: Path) -> Iterator[dict[str, str]]:
    """Run the tests' Modal; yield what clients need in their environment."""
    command = [sys.executable, "-m", "modal_server", "--folder", str(folder)]
    with subprocess.Popen(
        command,
        cwd=ROOT / "tests",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout
        found: dict[str, str] = {}
        try:
            while not {"MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"} <= found.keys():
                name, _, value = server.stdout.readline().strip().partition("=")
                found[name.removeprefix("export ")] = value.strip("'\"")
            yield found
        finally:
            server.terminate()


def seconds(folder: Path, jobs: int, *options: str, environment: dict[str, str]) -> list[float]:
    """Run the chain in ``folder``; return the time to its first output and between the others."""
    folder.mkdir()
    (folder / "Snakefile").write_text(CHAIN.format(last=jobs))
    command = [sys.executable, "-m", "snakemake", *options]
    times = [time.perf_counter()]
    with (
        (folder / "said.txt").open("w+", encoding="utf-8") as said,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT
        ) as run,
    ):
        for number in range(jobs + 1):
            while not (folder / f"{number}.txt").exists():
                if run.poll() is not None:
                    sys.exit((folder / "said.txt").read_text(encoding="utf-8"))
                time.sleep(0.002)
            times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    """Print the table, then all figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10, help="length of the chain")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, loopback(Path(name) / "cloud") as account:
        here = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        found = {
            "local": seconds(Path(name) / "local", given.jobs, "--cores", "1", environment=here),
            "modal": seconds(
                Path(name) / "modal",
                given.jobs,
                *("--executor", "modal", "--jobs", "1"),
                environment={**here, **account},
            ),
        }
        kept = (Path(name) / "modal/.snakemake/modal/receipts.jsonl").read_text(encoding="utf-8")
    inside = statistics.median(json.loads(line)["seconds"] for line in kept.splitlines()[1:])
    table = Table("where", "first job, s", "median of the others, s", "slowest, s")
    medians = {where: statistics.median(times[1:]) for where, times in found.items()}
    for where, times in found.items():
        row = (times[0], medians[where], max(times[1:]))
        table.add_row(where, *(f"{value:.2f}" for value in row))
    table.add_row("of that in the container", "", f"{inside:.2f}", "")
    Console().print(table)
    added = medians["modal"] - medians["local"]
    figures = {
        "jobs": given.jobs,
        "overhead_s": round(added, 2),
        "container_s": round(inside, 2),
        "plugin_s": round(added - inside, 2),
        **{f"{where}_job_s": round(value, 2) for where, value in medians.items()},
        **{f"{where}_first_s": round(times[0], 2) for where, times in found.items()},
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
