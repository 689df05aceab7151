"""What the tests of plan, shards and identity share: an identity, a provider, a dataset."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from imprint.identity import Identity
from imprint.plan import Row
from imprint.settings import Provision
from imprint.stages import identity as merging
from imprint.stages import plan as planning
from imprint.stages import shards as making

PLUGIN = Path(__file__).parent / "plugins" / "imprint-echo"


def install_echo(folder: Path) -> Path:
    """Install the provider ``echo`` into ``folder`` as pip would; return the folder."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    about = folder / "imprint_echo-1.0.dist-info"
    about.mkdir(parents=True)
    shutil.copy(PLUGIN / "imprint_echo.py", folder)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: imprint-echo\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in points.items())
            for group, points in project["entry-points"].items()
        )
    )
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
            turns=max(1, index % 3),
            persona="a child",
            register="plain",
            typos=False,
            opener="",
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

    def make(self, model: str | None = None, provider: str = "echo", **terms: Any) -> "Dataset":
        """Have the provider write every shard."""
        self.shards = []
        for plan in self.plans:
            self.shards.append(self.root / "shards" / f"{plan.stem}.jsonl")
            provision = Provision(provider=provider, provider_model=model, **terms)
            journal = self.root / "journal" / "journal.sqlite"
            making.run(plan=plan, provision=provision, journal=journal, out=self.shards[-1])
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
