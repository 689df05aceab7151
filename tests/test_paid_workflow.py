"""The pipeline with a provider over the network: forecast, budget, kills, keys, later changes."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stubs.server import Stub
from workflow_kit import Project, copied

pytestmark = pytest.mark.workflow

KEY = "fake-key-for-tests-only"
FAULTS = ("rate-limit", "overloaded-503", "truncated", "rival", "reset", "cut-body", "not-json")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(key=KEY, latency=0.02, retry_after=0.1) as stub:
        yield stub


class Paid:
    """A copy of this project whose conversations come from the stub."""

    def __init__(self, root: Path, stub: Stub, provider: str = "openrouter") -> None:
        plain = copied(root)
        self.project = Project(plain.root, more={"OPENROUTER_API_KEY": KEY})
        self.settings = {
            "provider": provider,
            "base_url": stub.base(provider),
            "conversations": 60,
            "shard_size": 30,
            "timeout_s": 5,
        }

    def options(self, **changes: Any) -> list[str]:
        merged = {**self.settings, **changes}
        return [f"{key}={value}" for key, value in merged.items() if value is not None]

    def run(
        self, *targets: str, without_key: bool = False, **changes: Any
    ) -> subprocess.CompletedProcess[str]:
        project = Project(self.project.root) if without_key else self.project
        return project.snakemake(*(targets or ["data"]), config=self.options(**changes))

    def lines(self) -> list[dict[str, Any]]:
        shards = sorted((self.project.results / "shards").glob("*.jsonl"))
        return [json.loads(line) for path in shards for line in path.read_text().splitlines()]


@pytest.fixture
def paid(tmp_path: Path, stub: Stub) -> Paid:
    return Paid(tmp_path / "paid", stub)


def test_a_run_tells_what_it_will_cost_keeps_what_it_pays_for_and_shows_the_bill(
    paid: Paid, stub: Stub
) -> None:
    stub.settings.rate, stub.settings.kinds = 0.1, FAULTS
    seen: set[str] = set()
    watching = threading.Event()
    threading.Thread(target=_watch, args=(watching, seen), daemon=True).start()
    done = paid.run()
    watching.set()
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"60 conversations from qwen/\S+: about 66 requests, 0\.\d+ million tokens in and "
        r"0\.01 out, \$0\.0\d \(price: genai-prices [\d.]+\), \d+\.\d s\. "
        r"Spent so far: \$0\.00 of \$5\.00\.",
        done.stderr,
    ), done.stderr
    lines = paid.lines()
    assert [line["id"] for line in lines] == [f"{index:06d}" for index in range(60)]
    assert len(stub.count.answered_to) >= 60
    assert max(stub.count.answered_to.values()) == 1, "nothing is paid for twice"
    bill = json.loads((paid.project.results / "identity.json").read_text())["bill"]
    assert bill["answers"] + 1 == stub.count.answered, "all but the probe's"
    assert sum(model["conversations"] for model in bill["models"].values()) == 60

    shown = paid.project.imprint("journal")
    assert re.search(r"openrouter: +\d+ ", shown.stdout), shown.stdout
    assert re.search(r"Spent: \$0\.0\d+ for \d+ answers to 60 conversations\.", shown.stdout)
    one = paid.project.imprint("journal", "7")
    assert "ask 1, qwen/" in one.stdout and "  assistant: " in one.stdout
    assert "no answer to conversation 60" in paid.project.imprint("journal", "60").stderr

    for path in paid.project.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), f"{path} holds the key"
    assert KEY not in done.stdout + done.stderr
    assert any("shards.py" in command for command in seen)
    assert not any(KEY in command for command in seen), "no command line holds the key"


def _watch(done: threading.Event, seen: set[str]) -> None:
    while not done.wait(0.02):
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.add(path.read_text(errors="replace"))
            except OSError:
                continue


def test_later_changes_pay_only_for_what_is_new(paid: Paid, stub: Stub) -> None:
    assert paid.run().returncode == 0
    first = (paid.project.results / "shards" / "0000.jsonl").read_bytes()
    asked = stub.count.received
    again = paid.run()
    assert "Nothing to be done" in again.stdout + again.stderr
    assert paid.run(conversations=30).returncode == 0, "fewer: the prefix is used"
    assert len((paid.project.results / "identity.jsonl").read_text().splitlines()) < 30
    assert stub.count.received == asked

    grown = paid.run(conversations=90)
    assert grown.returncode == 0, grown.stderr
    assert "30 conversations from" in grown.stderr
    assert stub.count.answered_to.total() == asked + 30
    (paid.project.results / "shards" / "0000.jsonl").unlink()
    lost = paid.run("results/shards/0000.jsonl", conversations=90)
    assert lost.returncode == 0
    assert "All 30 conversations are in the journal: nothing to pay." in lost.stderr
    assert (paid.project.results / "shards" / "0000.jsonl").read_bytes() == first
    assert stub.count.answered_to.total() == asked + 30


def test_killed_midway_a_run_is_completed_and_nothing_is_paid_for_twice(
    paid: Paid, stub: Stub
) -> None:
    stub.settings.latency = 0.5
    config = paid.options(in_flight=10)
    for _ in range(3):
        before = stub.count.answered
        run = subprocess.Popen(
            paid.project.command("data", config=config),
            cwd=paid.project.root,
            env=paid.project.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while stub.count.answered < before + 12 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    stub.settings.latency = 0.02
    assert paid.run(in_flight=10).returncode == 0
    assert [line["id"] for line in paid.lines()] == [f"{index:06d}" for index in range(60)]
    extra = stub.count.answered - len(stub.count.answered_to)
    assert extra <= 3 * 10 + 3, "only what was under way at a kill"
    assert "at a kill" not in paid.project.imprint("journal").stdout
    assert "Counted as spent" in paid.project.imprint("journal").stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"budget_usd": 0.001},
            "error: budget_usd: 60 conversations will cost about $0.02, and $0.00 of $0.00 is spent"
            " already. The rest buys about 3. Set budget_usd to at least 0.02, or `conversations`",
        ),
        ({"provider": "openruter"}, "no provider is named 'openruter'; installed: "),
        ({"base_url": "localhost:11434"}, "base_url"),
        ({"provider_model": "nobody/knows"}, "error: price: what nobody/knows costs at http"),
        ({"provider": "gemini"}, "error: GEMINI_API_KEY is not set."),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_what_cannot_work_is_refused_before_any_job(
    paid: Paid, stub: Stub, changes: dict[str, Any], said: str
) -> None:
    refused = paid.run(**changes)
    assert refused.returncode != 0
    assert said in refused.stdout + refused.stderr
    assert "start " not in refused.stdout + refused.stderr
    assert stub.count.received == 0


def test_without_a_key_nothing_starts_and_the_plan_says_so(paid: Paid, stub: Stub) -> None:
    refused = paid.run(without_key=True)
    assert refused.returncode != 0
    assert "error: OPENROUTER_API_KEY is not set. Put the key into it" in refused.stderr
    assert "start " not in refused.stdout + refused.stderr
    options = ("--cores", "2", "--configfile", "config/test.yaml", "--config", *paid.options())
    planned = Project(paid.project.root).imprint("plan", "--", *options)
    assert "This would be refused: OPENROUTER_API_KEY is not set." in planned.stdout
    planned = paid.project.imprint("plan", "--", *options)
    assert re.search(r"about \$0\.02\.", planned.stdout), planned.stdout + planned.stderr
    assert "60 conversations from qwen/" in planned.stdout
    assert stub.count.received == 0


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({"key": "another"}, {}, "Check the key in OPENROUTER_API_KEY."),
        ({}, {"provider_model": "missing/x", "price": "{input: 1, output: 1}"}, "provider_model"),
        ({"script": ("html",), "hits": ("chat",)}, {}, "base_url"),
        ({"script": ("no-credit",)}, {}, "402"),
    ],
)
def test_what_the_provider_refuses_is_told_in_one_line(
    tmp_path: Path, settings: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with Stub(**{"key": KEY, **settings}) as stub:
        refused = Paid(tmp_path / "paid", stub).run(conversations=10, **changes)
        assert refused.returncode != 0
        error = re.search(r"^error: (.*)$", refused.stdout + refused.stderr, re.MULTILINE)
        assert error and said in error[1], refused.stdout + refused.stderr
        assert stub.count.received <= 4


def test_terms_have_to_be_acknowledged_and_the_manifest_records_it(
    tmp_path: Path, stub: Stub
) -> None:
    paid = Paid(tmp_path / "paid", stub, "gemini")
    paid.project.more.update(GEMINI_API_KEY=KEY)
    refused = paid.run(conversations=10)
    assert "error: acknowledge_terms: Google" in refused.stderr
    done = paid.run(conversations=10, acknowledge_terms="[gemini]")
    assert done.returncode == 0, done.stdout + done.stderr
    shard = json.loads((paid.project.results / "shards" / "0000.json").read_text())
    assert "Google" in shard["acknowledged_terms"]


def test_providers_are_listed_with_their_key_and_whether_it_is_set(paid: Paid) -> None:
    listed = paid.project.imprint("providers").stdout
    assert re.search(r"openrouter +qwen/\S+ +OPENROUTER_API_KEY, set", listed)
    assert re.search(r"gemini +gemini-\S+ +GEMINI_API_KEY, not set", listed)
    assert re.search(r"template +template +none needed", listed)
    assert KEY not in listed
