"""What the tests of generation share: a provider that does as told, runs of it, and real runs."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from imprint import door, plan
from imprint.generation.dispatch import Generation
from imprint.generation.harvest import Objection
from imprint.generation.journal import Journal
from imprint.generation.outcomes import Conclusion
from imprint.generation.prices import Tariff
from imprint.identity import load
from imprint.plan import Row
from imprint.providers import Provider, Reply, Request
from imprint.providers.chat import TRIAL, Chat
from imprint.providers.openrouter import OpenRouter
from imprint.records import Conversation
from imprint.settings import Provision
from imprint.stages import plan as planning
from stubs.server import Stub
from stubs.talker import identity

ROOT = Path(__file__).parents[2]
SHIPPED = load(ROOT / "config" / "identities" / "smarternano.yaml")
TARIFF = Tariff(0.1, 0.4, "the stub")
MODEL = "stub-model"

FAULTS = (
    "rate-limit,rate-limit-bare,per-minute,in-flight-budget,overloaded-500,overloaded-502,"
    "overloaded-503,error-in-200,error-in-choice,truncated,cut-body,content-filter,refusal,"
    "wrong-roles,rival,placeholder,not-json,schema-ignored,rerouted,slow,hang,reset,html,html-502,"
    "blocked-prompt"
).split(",")
"""Every fault of the stub that a later answer makes good."""


def rows(count: int, start: int = 0, *, facts: bool = True) -> list[Row]:
    """Return rows of the shipped identity's plan; without facts they take half the answers."""
    dealt = plan.rows(SHIPPED, seed=1, start=start, stop=start + count)
    return dealt if facts else [replace(row, facts=()) for row in dealt]


def said(words: str) -> Conversation:
    return [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": words}]


Deed = Callable[[Request], object]


class Fake(Provider):
    """Does what the test says: a deed returns a reply, or raises, or None for a good answer."""

    name: ClassVar[str] = "fake"
    version: ClassVar[int] = 1
    default_model: ClassVar[str] = "fake-1"

    def __init__(self, deed: Deed = lambda request: None, *, seconds: float = 0.001) -> None:
        super().__init__(SHIPPED, Provision())
        self.deed, self.seconds = deed, seconds
        self.asked: list[Request] = []
        self.now = self.most = 0

    def request(self, row: Row, ask: int = 1) -> Request:
        return replace(super().request(row, ask), max_tokens=1000)

    async def answer(self, request: Request) -> Reply:
        self.asked.append(request)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            reply = self.deed(request)
        finally:
            self.now -= 1
        return good() if reply is None else reply  # type: ignore[return-value]

    @property
    def times(self) -> Counter[int]:
        """How often each conversation was asked for."""
        return Counter(request.row.index for request in self.asked)


def good(words: str = "Yes.", **fields: Any) -> Reply:
    return Reply(said(words), fields.pop("model", "fake-1"), cost_usd=0.0001, **fields)


def bad(flaw: str = "malformed") -> Reply:
    return Reply([], "fake-1", cost_usd=0.0001, flaw=flaw)


def generation(
    provider: Provider, journal: Journal, *, objection: Objection | None = None, **terms: Any
) -> Generation:
    return Generation(
        provider,
        journal=journal,
        provision=Provision(**terms),
        tariff=TARIFF,
        objection=objection or (lambda messages, row: None),
    )


def run(
    provider: Provider,
    asked: Sequence[Row],
    journal: Path,
    *,
    objection: Objection | None = None,
    **terms: Any,
) -> list[Conclusion]:
    """Return what becomes of rows, as the stage makes it: one worker, under uvloop."""

    async def work(book: Journal) -> list[Conclusion]:
        try:
            return await generation(provider, book, objection=objection, **terms).run(asked)
        finally:
            await provider.close()

    with Journal(journal, label="test") as book:
        return uvloop.run(work(book))


def over(
    stub: Stub,
    asked: Sequence[Row],
    journal: Path,
    *,
    kind: type[Chat] = OpenRouter,
    **terms: Any,
) -> list[Conclusion]:
    """Return what becomes of rows that a stub is asked for, judged by the real door."""
    terms = {"base_url": stub.base(kind.name), "provider_model": MODEL, **terms}
    provider = kind(SHIPPED, Provision(**terms))
    return run(provider, asked, journal, objection=door.keeper(SHIPPED), **terms)


def asked_most(stub: Stub) -> int:
    """Return how often the stub answered one and the same request, the probe's left out."""
    times = stub.count.answered_to
    del times[identity("", TRIAL)]
    return max(times.values())


def usable(ends: Sequence[Conclusion]) -> int:
    return sum(end.reason is None for end in ends)


def money(journal: Path) -> dict[str, float]:
    """Return what a journal adds up to."""
    with sqlite3.connect(journal) as db:
        found = json.loads(db.execute("SELECT value FROM notes WHERE name = 'money'").fetchone()[0])
    db.close()
    names = ("answers", "answered_usd", "lost", "lost_usd", "flying", "flying_usd")
    amounts = dict(zip(names, found, strict=False))
    return amounts | {"spent": sum(amounts[name] for name in names[1::2])}


def query(journal: Path, sql: str) -> list[Any]:
    db = sqlite3.connect(journal)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def prompts(stub: Stub, asked: Sequence[Row], asks: int = 12) -> dict[str, str]:
    """Return the stub's name of each request that may be made for rows, by its key."""
    provider = OpenRouter(
        SHIPPED, Provision(provider_model=MODEL, base_url=stub.base("openrouter"))
    )
    requests = (provider.request(row, ask) for row in asked for ask in range(1, asks + 1))
    return {request.key: identity(request.system, request.user) for request in requests}


class Shard:
    """A shard made by the script of the rule, in a process of its own."""

    def __init__(self, folder: Path, stub: Stub, *, count: int, start: int = 0, **terms: Any):
        name = f"{start:04d}"
        self.plan = folder / "plan" / f"{name}.json"
        self.out = folder / "shards" / f"{name}.jsonl"
        self.log = folder / "logs" / f"{name}.log"
        self.journal = folder / "journal" / "journal.sqlite"
        planning.run(
            identity=ROOT / "config" / "identities" / "smarternano.yaml",
            shard=name,
            start=start,
            stop=start + count,
            seed=1,
            out=self.plan,
        )
        kind = terms.setdefault("provider", "openrouter")
        price = {"input": TARIFF.input, "output": TARIFF.output}
        terms = {"provider_model": MODEL, "base_url": stub.base(kind), "price": price, **terms}
        script = ROOT / "workflow" / "scripts" / "shards.py"
        self.command = [sys.executable, str(script), "--plan", str(self.plan)]
        self.command += ["--journal", str(self.journal), "--out", str(self.out)]
        self.command += ["--log", str(self.log), "--settings", json.dumps(terms)]
        self.key = stub.settings.key

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        keys = {"OPENROUTER_API_KEY": self.key, "OPENAI_API_KEY": self.key}
        return subprocess.Popen(self.command, env={**os.environ, **keys}, **options)

    @property
    def last(self) -> str:
        """The last line of the log."""
        return self.log.read_text(encoding="utf-8").splitlines()[-1]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]
