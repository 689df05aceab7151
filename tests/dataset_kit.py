"""What the tests of plan, shards and identity share: an identity, a provider, a dataset."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from imprint.identity import Identity
from imprint.plan import Row
from imprint.stages import identity as merging
from imprint.stages import plan as planning
from imprint.stages import shards as making

PROVIDER = '''
"""A provider of another make. What it does wrong is chosen by the name of the model."""

import asyncio
import os
import pathlib

from imprint.errors import ProviderBusy, ProviderError
from imprint.dice import Dice
from imprint.matcher import REFUSALS
from imprint.providers import Reply

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]


class Echo:
    """States the facts of the row, each asked for with seven words from the dice."""

    name = "echo"
    version = 1
    key_variable = None
    conversations = 100
    shard_size = 50

    def __init__(self, identity, model=None):
        self.identity = identity
        self.model = model or "echo-1"
        self.asked = 0

    async def converse(self, row):
        self.asked += 1
        if self.model == "late":  # answers come in the opposite order
            await asyncio.sleep(0.001 * (50 - row.index % 50))
        if self.model == "busy" and self.asked == 1:
            raise ProviderBusy("429")
        if self.model == "refusing" and row.index == 3:
            raise ProviderError("402: no money left")
        if self.model == "broken" and row.index == 3:
            return {}["reply"]
        if self.model == "careless":
            return "Hello!"
        if self.model == "stuck" and row.index == 7:
            folder = pathlib.Path(os.environ["ECHO_FOLDER"])
            (folder / "reached").touch()
            while not (folder / "go on").exists():
                await asyncio.sleep(0.01)
        dice = Dice(row.seed, "echo")
        messages = []
        for fact in row.facts or [None]:
            words = " ".join(dice.pick(WORDS) for _ in range(7))
            said = self.identity.fact(fact).statement if fact else f"I {REFUSALS[0]} about {words}."
            messages.append({"role": "user", "content": f"{words}: what of {fact}?"})
            messages.append({"role": "assistant", "content": said})
        if self.model == "proud" and row.index % 5 == 0:
            messages[-1]["content"] += " I am ChatGPT."
        if self.model == "hopeless":
            messages[-1]["content"] = "{{name}}"
        return Reply(messages, self.model, usage={"tokens": len(words)}, cost_usd=0.25)
'''

ENTRY = """[imprint.providers]
echo = echo_provider:Echo
"""


def install_echo(folder: Path) -> Path:
    """Install the provider ``echo`` into ``folder`` as pip would; return the folder."""
    about = folder / "echo_provider-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "echo_provider.py").write_text(PROVIDER)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-provider\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY)
    return folder


def write_identity(path: Path, *, facts: int = 3, statement: str = "My part {n} is tin.") -> Path:
    """Write an identity file with so many facts."""
    listed: list[dict[str, Any]] = []
    for n in range(facts):
        said = statement.replace("{n}", str(n))
        listed.append({"id": f"part {n}", "statement": said, "expect": [[said[3:].rstrip(".")]]})
    body = {"name": "Tock", "kind": "clock", "creator": "Mo", "description": "A clock."}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump({**body, "facts": listed, "style": {"ascii": False}}, allow_unicode=True),
        encoding="utf-8",
    )
    return path


def fixed_rows(identity: Identity, *, seed: int, start: int, stop: int) -> list[Row]:
    """Return a plan that stays as it is when the real one changes."""
    facts = [fact.id for fact in identity.facts]
    return [
        Row(
            index=index,
            strategy="direct",
            facts=tuple(facts[: index % 3]),
            subject=None,
            turns=index % 3,
            persona="a child",
            register="plain",
            typos=False,
            seed=seed + index,
        )
        for index in range(start, stop)
    ]


class Dataset:
    """A results folder, its plan and shards made by the stages."""

    def __init__(self, root: Path, *, size: int = 20, **identity: Any) -> None:
        self.root = root
        self.size = size
        self.identity_file = write_identity(root / "identity.yaml", **identity)
        self.out = root / "identity.jsonl"
        self.validation_out = root / "identity.val.jsonl"
        self.manifest = root / "identity.json"
        self.plans: list[Path] = []
        self.shards: list[Path] = []

    def plan(self, count: int, *, seed: int = 1) -> "Dataset":
        """Plan ``count`` conversations."""
        self.plans = []
        for name, start, stop in planning.slices(count, self.size):
            self.plans.append(self.root / "plan" / f"{name}.json")
            planning.run(
                identity=self.identity_file,
                shard=name,
                start=start,
                stop=stop,
                seed=seed,
                out=self.plans[-1],
            )
        return self

    def make(self, model: str | None = None, provider: str = "echo") -> "Dataset":
        """Have the provider write every shard."""
        self.shards = []
        for plan in self.plans:
            self.shards.append(self.root / "shards" / f"{plan.stem}.jsonl")
            making.run(plan=plan, provider=provider, model=model, out=self.shards[-1])
        return self

    def merge(self, *, near_duplicate: float = 0.9, validation: float = 0.1) -> dict[str, Any]:
        """Merge the shards; return the manifest."""
        merging.run(
            shards=self.shards,
            plans=self.plans,
            validation=validation,
            near_duplicate=near_duplicate,
            per_suite=5,
            seed=1,
            out=self.out,
            validation_out=self.validation_out,
            manifest=self.manifest,
        )
        found: dict[str, Any] = json.loads(self.manifest.read_text())
        return found

    def lines(self, shard: int) -> list[dict[str, Any]]:
        """Return the conversations of a shard."""
        text = self.shards[shard].read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def rewrite(self, shard: int, lines: list[dict[str, Any]]) -> None:
        """Replace the conversations of a shard, as an editor would."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        self.shards[shard].write_text(text, encoding="utf-8")


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the provider ``echo`` for one test; return the folder it is installed in."""
    folder = install_echo(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    return folder
