"""The journal's file: its tables, and what happens when it is damaged or another version's."""

import contextlib
import json
import logging
import sqlite3
import time
from pathlib import Path

from imprint.errors import StorageError
from imprint.providers import Reply

logger = logging.getLogger("imprint")

SCHEMA = 1
"""Version of the tables, kept in the file's `user_version`."""

TABLES = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, provider TEXT, model TEXT, conversation INTEGER, ask INTEGER,
    reply TEXT, flaw TEXT, input INTEGER, output INTEGER, cost_usd REAL, seconds REAL, at REAL
) WITHOUT ROWID;
CREATE TABLE flights (key TEXT PRIMARY KEY, worker INTEGER, most_usd REAL) WITHOUT ROWID;
CREATE TABLE batched (
    key TEXT PRIMARY KEY, batch TEXT, provider TEXT, model TEXT, worker INTEGER, at REAL
) WITHOUT ROWID;
CREATE TABLE lost (key TEXT, most_usd REAL, why TEXT, at REAL);
CREATE TABLE workers (
    id INTEGER PRIMARY KEY, label TEXT, total INTEGER DEFAULT 0, done INTEGER DEFAULT 0,
    retried INTEGER DEFAULT 0, rejected INTEGER DEFAULT 0, ended INTEGER DEFAULT 0
);
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
INSERT INTO notes VALUES ('money', '[0, 0.0, 0, 0.0, 0, 0.0]');
"""


def unwritable(path: Path, error: sqlite3.Error) -> StorageError:
    """Return the error for a journal that SQLite could not write."""
    return StorageError(
        f"{path}: could not be written ({error}). Answers that arrived before are kept. "
        "Free some space or make the folder writable, and run again."
    )


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to the journal; to a new one if it is damaged or of another version."""
    fault = None
    try:
        db = _connected(path)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA:
            fault = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if fault == "ok":
                return db
        elif version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            return _created(db)
        else:
            fault = f"of version {version} of imprint's journals, not {SCHEMA}"
        db.close()
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        fault = str(error)
    aside = path.with_name(f"{path.stem}.{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    db = _created(_connected(path))
    saved = _taken_over(aside, db)
    logger.warning(
        "warning: %s: damaged or not readable here (%s). It is kept as %s; %d of its answers are "
        "taken over, and count against the budget.",
        *(path, fault, aside, saved),
    )
    return db


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def _created(db: sqlite3.Connection) -> sqlite3.Connection:
    db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
    return db


def _taken_over(old: Path, new: sqlite3.Connection) -> int:
    """Copy answers until the damage begins; return how many."""
    count, cost = 0, 0.0
    with contextlib.suppress(sqlite3.Error, ValueError), contextlib.closing(_connected(old)) as db:
        for row in db.execute("SELECT * FROM answers"):
            Reply(**json.loads(row[5]))
            marks = ", ".join("?" * 12)
            new.execute(f"INSERT OR IGNORE INTO answers VALUES ({marks})", row)
            count, cost = count + 1, cost + row[9]
    sums = [count, cost, 0, 0.0, 0, 0.0]
    new.execute("UPDATE notes SET value = ? WHERE name = 'money'", (json.dumps(sums),))
    return count
