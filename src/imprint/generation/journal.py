"""The journal: every answer that was ever paid for, what it cost, and what is under way.

One SQLite file in WAL mode, shared by all jobs of a run. A request is reserved before it is sent,
and its answer is written before anything else happens with it. So no answer is paid for twice, a
kill loses at most what was under way, and the budget holds over all jobs and all runs.

A request that was under way when its process died counts as spent, at the most it can have cost:
the provider may have answered it. (A commit reaches the operating system, which outlives the
process. `synchronous` is NORMAL: a power failure may lose the last second, never the file.)
"""

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from imprint.artifacts import storage_error
from imprint.errors import StorageError
from imprint.generation import JOURNAL
from imprint.generation.storage import opened, unwritable
from imprint.providers import Reply, Request

FEW = 20
"""Answers of a model below which they tell little about those to come."""


@dataclass(frozen=True)
class Kept:
    """An answer in the journal."""

    reply: Reply
    cost_usd: float
    """What it cost, by the provider's word or by the price table."""


@dataclass
class Money:
    """What the whole journal adds up to, in USD."""

    answers: int
    answered_usd: float
    lost: int
    lost_usd: float
    """Most that the requests can have cost whose answer never arrived."""
    flying: int
    flying_usd: float
    """Most that the requests under way can cost."""
    batched: int = 0
    """How many of them are in batches, which outlive their worker."""

    @property
    def spent_usd(self) -> float:
        """What counts against the budget."""
        return self.answered_usd + self.lost_usd + self.flying_usd


@dataclass(frozen=True)
class Experience:
    """What a model's answers took on average."""

    asks: float
    """Answers a conversation."""
    output: float
    """Tokens an answer."""
    seconds: float
    """Time an answer takes."""


@dataclass(frozen=True)
class Progress:
    """How far all workers of a run are together."""

    leads: bool
    """Whether this worker is the one that tells the terminal."""
    total: int
    done: int
    """Conversations that are finished, used or given up."""
    retried: int
    rejected: int
    money: Money


class Journal:
    """An open journal. Its owner is a worker: a process that asks for conversations."""

    def __init__(self, path: Path = JOURNAL, *, label: str = "") -> None:
        """Open or create the journal, and take what dead workers had under way for lost.

        A file that is damaged, or of another version of imprint, is moved aside, never deleted;
        what can be read of it is taken over.

        Args:
            path: The file; beside it stand SQLite's own, and a lock for each worker.
            label: What this worker does, for people.

        Raises:
            StorageError: The folder may not be written.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with (path.parent / "opening.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.db = opened(path)
        except OSError as error:
            raise storage_error(path, error) from error
        except sqlite3.OperationalError as error:
            raise unwritable(path, error) from error
        self.money = self._money()
        with self.transaction():
            cursor = self.db.execute("INSERT INTO workers (label) VALUES (?)", (label,))
            self.worker = int(cursor.lastrowid or 0)
            self._lock = self._lock_of(self.worker)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.bury()

    def close(self) -> None:
        """End this worker."""
        with contextlib.suppress(StorageError):
            self._end(self.worker, "its process was stopped")
        self.db.close()
        Path(self._lock.name).unlink(missing_ok=True)
        self._lock.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what the block does at once for every other worker, or not at all.

        Raises:
            StorageError: The disk is full or the file may not be written.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.money = self._money()
            before = vars(self.money).copy()
            yield
            if vars(self.money) != before:
                self.note("money", list(vars(self.money).values()))
            self.db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise unwritable(self.path, error) from error
        finally:
            if self.db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")

    def find(self, key: str) -> Kept | None:
        """Return the answer to the request ``key``, if it was ever answered."""
        rows = self.db.execute("SELECT reply, cost_usd FROM answers WHERE key = ?", (key,))
        for reply, cost in rows:
            return Kept(Reply(**json.loads(reply)), cost)
        return None

    def reserve(
        self, key: str, *, most_usd: float, budget_usd: float
    ) -> Literal["go", "taken", "answered", "dear"]:
        """Note, inside a transaction, that a request is about to be sent.

        Args:
            key: Of the request.
            most_usd: Most that it can cost.
            budget_usd: Most that may ever be spent.

        Returns:
            ``go``; ``taken`` if a worker has it under way; ``answered``; ``dear`` if the budget
            does not allow it while all that is under way may cost its most.
        """
        if self.db.execute("SELECT 1 FROM flights WHERE key = ?", (key,)).fetchone():
            return "taken"
        if self.db.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
            return "answered"
        if self.money.spent_usd + most_usd > budget_usd:
            return "dear"
        self.db.execute("INSERT INTO flights VALUES (?, ?, ?)", (key, self.worker, most_usd))
        self._add(flying=1, flying_usd=most_usd)
        return "go"

    def keep(self, request: Request, reply: Reply, *, cost_usd: float, seconds: float) -> None:
        """Write down, inside a transaction, the answer to ``request``."""
        self.release(request.key)
        usage = reply.usage
        self.db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(request.key, request.provider, request.model, request.row.index, request.ask),
                *(json.dumps(vars(reply)), reply.flaw),
                *(usage.get("input", 0), usage.get("output", 0), cost_usd, seconds, time.time()),
            ),
        )
        self._add(answers=1, answered_usd=cost_usd)

    def pay(self, cost_usd: float) -> None:
        """Count, inside a transaction, what was spent on something else than an answer."""
        self._add(answered_usd=cost_usd)

    def release(self, key: str) -> float:
        """Note, inside a transaction, that a request is not under way; return its most in USD."""
        deleted = "DELETE FROM flights WHERE key = ? RETURNING most_usd"
        flown = [most for (most,) in self.db.execute(deleted, (key,)).fetchall()]
        self._add(flying=-len(flown), flying_usd=-sum(flown))
        return float(sum(flown))

    def lose(self, key: str, why: str) -> None:
        """Note, inside a transaction, that a request may have been answered, out of our sight."""
        most = self.release(key)
        self.db.execute("INSERT INTO lost VALUES (?, ?, ?, ?)", (key, most, why, time.time()))
        self._add(lost=1, lost_usd=most)

    def bury(self) -> None:
        """Take for lost what workers had under way that live no more."""
        listed = "SELECT id FROM workers WHERE ended = 0 AND id != ?"
        for (worker,) in self.db.execute(listed, (self.worker,)).fetchall():
            with self._lock_of(worker) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                self._end(worker, "its process died")
                Path(lock.name).unlink(missing_ok=True)

    def _end(self, worker: int, why: str) -> None:
        with self.transaction():
            flights = "SELECT key FROM flights WHERE worker = ?"
            for (key,) in self.db.execute(flights, (worker,)).fetchall():
                self.lose(key, why)
            self.db.execute("UPDATE workers SET ended = 1 WHERE id = ?", (worker,))

    def experience(self, provider: str, model: str) -> Experience | None:
        """Return what the answers of ``model`` took so far; None if there are too few to tell."""
        count, rows, tokens, seconds = self.db.execute(
            "SELECT count(*), sum(ask = 1), sum(output), sum(seconds) FROM answers"
            " WHERE provider = ? AND model = ?",
            (provider, model),
        ).fetchone()
        if count < FEW or not rows:
            return None
        return Experience(asks=count / rows, output=tokens / count, seconds=seconds / count)

    def report(self, **counts: int) -> None:
        """Tell the other workers, inside a transaction, how far this one is."""
        sets = ", ".join(f"{name} = ?" for name in counts)
        self.db.execute(f"UPDATE workers SET {sets} WHERE id = ?", (*counts.values(), self.worker))

    def begin(self, planned: int) -> None:
        """Note that a run begins, in which ``planned`` conversations are to be made."""
        with self.transaction():
            newest = self.db.execute("SELECT coalesce(max(id), 0) FROM workers").fetchone()[0]
            run = {"after": newest, "planned": planned, "started": time.time()}
            self.note("run", {**run, "answers": self.money.answers})

    def progress(self) -> Progress:
        """Return how far the run is that this worker is part of."""
        run = self.noted("run") or {"after": self.worker - 1, "planned": 0, "answers": 0}
        row = self.db.execute(
            "SELECT min(CASE ended WHEN 0 THEN id END), sum(total), sum(done), sum(retried),"
            " sum(rejected) FROM workers WHERE id > ?",
            (run["after"],),
        ).fetchone()
        leader, total, done, retried, rejected = row
        return Progress(
            leads=leader == self.worker,
            total=max(run["planned"], total or 0),
            done=done or 0,
            retried=retried or 0,
            rejected=rejected or 0,
            money=self._money(),
        )

    def note(self, name: str, value: object) -> None:
        """Remember ``value``, JSON types, under ``name``."""
        self.db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, json.dumps(value)))

    def noted(self, name: str) -> Any:
        """Return what was noted under ``name``; None if nothing was."""
        for (value,) in self.db.execute("SELECT value FROM notes WHERE name = ?", (name,)):
            return json.loads(value)
        return None

    def _money(self) -> Money:
        return Money(*self.noted("money"))

    def _add(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            setattr(self.money, name, getattr(self.money, name) + amount)

    def _lock_of(self, worker: int) -> TextIO:
        return (self.path.parent / f"worker-{worker}.lock").open("w")
