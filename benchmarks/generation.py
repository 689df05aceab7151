"""Our asking for conversations against what latency allows: python -m benchmarks.generation.

A stub server in a process of its own answers every request after 0.2 s; with C requests under way
at once no client can get more than C / 0.2 s conversations a second. The share of that is shown
for several C, with the processor time of this process for each conversation, memory after 1,000
and after 10,000, and how much longer 1,000 take when every tenth request meets a random fault.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import uvloop
from rich.console import Console
from rich.table import Table

from imprint import door, plan
from imprint.generation.dispatch import Generation
from imprint.generation.journal import Journal
from imprint.generation.prices import Tariff
from imprint.identity import load
from imprint.providers.openai import OpenAI
from imprint.settings import Provision

ROOT = Path(__file__).parents[1]
LATENCY_S = 0.2
MODEL = "stub-model"
FAULTS = (
    "rate-limit,rate-limit-bare,overloaded-500,overloaded-502,overloaded-503,"
    "error-in-200,error-in-choice,truncated,cut-body,content-filter,refusal,wrong-roles,rival,"
    "placeholder,not-json,schema-ignored,rerouted,slow,hang,reset,html,html-502"
)


@contextmanager
def stub(*options: str) -> Iterator[str]:
    """Run the stub server; yield its URL."""
    command = [sys.executable, "-m", "stubs.server", "--latency", str(LATENCY_S), *options]
    with subprocess.Popen(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:  # or the block would wait for ever
            server.terminate()


def run(url: str, conversations: int, in_flight: int, **terms: Any) -> dict[str, float]:
    """Have ``conversations`` written; return how long that took, and what came of it."""
    urlopen(Request(f"{url}/stub/reset", method="POST"), timeout=10).close()
    identity = load(ROOT / "config" / "identities" / "smarternano.yaml")
    rows = plan.rows(identity, seed=1, start=0, stop=conversations)
    provision = Provision(
        provider="openai",
        provider_model=MODEL,
        base_url=f"{url}/v1",
        budget_usd=1000,
        in_flight=in_flight,
        **terms,
    )

    async def ask(journal: Journal) -> tuple[int, float, float]:
        provider = OpenAI(identity, provision)
        await provider.probe("json_schema")
        generation = Generation(
            provider,
            journal=journal,
            provision=provision,
            tariff=Tariff(0.1, 0.4, "the benchmark"),
            objection=door.keeper(identity),
        )
        started, used = time.perf_counter(), time.process_time()
        try:
            ends = await generation.run(rows)
        finally:
            await provider.close()
        took = time.perf_counter() - started, time.process_time() - used
        return sum(end.reason is None for end in ends), *took

    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j.sqlite") as journal:
        usable, seconds, cpu = uvloop.run(ask(journal))
    with urlopen(f"{url}/stub/count", timeout=10) as answer:
        count = json.load(answer)
    return {
        "usable": usable,
        "seconds": seconds,
        "cpu_s": cpu,
        "twice": sum(1 for times in count["answered_to"].values() if times > 1),
        "memory_mb": _memory_mb(),
    }


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    """Print a table, then one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; medians count")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run, about")
    options = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "stub-key")
    shown = Table("requests under way", "conversations", "per second", "limit", "share", "CPU ms")
    result: dict[str, float] = {}
    with stub() as url:
        for in_flight in (4, 64, 256, 512):
            count = int(options.seconds / LATENCY_S) * in_flight
            runs = [run(url, count, in_flight) for _ in range(options.rounds)]
            rate = count / statistics.median(each["seconds"] for each in runs)
            cpu = 1000 * statistics.median(each["cpu_s"] for each in runs) / count
            limit = in_flight / LATENCY_S
            result[f"c{in_flight}"] = round(rate / limit, 3)
            figures = (in_flight, count, round(rate), round(limit), f"{rate / limit:.1%}")
            shown.add_row(*map(str, figures), f"{cpu:.2f}")
            if in_flight == 256:
                result["cpu_ms"] = round(cpu, 3)
        small, large = run(url, 1000, 256), run(url, 10_000, 256)
        result["memory_growth_mb"] = round(large["memory_mb"] - small["memory_mb"], 1)
        clean = [run(url, 1000, 64)["seconds"] for _ in range(options.rounds)]
    faults = ("--rate", "0.1", "--kinds", FAULTS, "--retry-after", "0.5")
    with stub(*faults) as url:
        faulty = [run(url, 1000, 64, timeout_s=1.0) for _ in range(options.rounds)]
    result["faulty_ratio"] = round(
        statistics.median(each["seconds"] for each in faulty) / statistics.median(clean), 3
    )
    result["faulty_usable"] = min(each["usable"] for each in faulty)
    Console().print(shown)
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
