"""The journal's file: its tables, and what happens when it is damaged or another version's."""

import contextlib
import json
import logging
import sqlite3
import time
from itertools import count
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
);
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
-- A worker of a journal that was here before may still hold its lock: no number comes again.
INSERT INTO workers (id, ended) VALUES (strftime('%s', 'now'), 1);
"""


def unwritable(path: Path, error: sqlite3.Error) -> StorageError:
    """Return the error for a journal that SQLite could not write."""
    return StorageError(
        f"{path}: could not be written ({error}). Answers that arrived before are kept. "
        "Free some space or make the folder writable, and run again."
    )


def opened(path: Path) -> sqlite3.Connection:
    """Return a connection to the journal; to a new one if it is damaged or of another version."""
    fault = _fault(path)
    if fault is None:
        db = _connected(path)
        return db if db.execute("SELECT 1 FROM sqlite_master").fetchone() else _created(db)
    aside = _free(path)
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


def _fault(path: Path) -> str | None:
    """Return what is wrong with the journal; None if nothing is, or there is none yet."""
    if not path.exists():
        return None
    try:
        with contextlib.closing(_untouched(path)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA:
                found: str = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                return None if found == "ok" else found
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                return None
            return f"of version {version} of imprint's journals, not {SCHEMA}"
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        return str(error)


def _free(path: Path) -> Path:
    """Return a name for an old journal that no file has yet."""
    stem = f"{path.stem}.{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{stem}{f'.{number}' if number else ''}{path.suffix}" for number in count())
    return next(found for name in names if not (found := path.with_name(name)).exists())


def _untouched(path: Path) -> sqlite3.Connection:
    """Return a connection that changes nothing: any other tidies up when it is closed."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


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
    saved, cost, lost = 0, 0.0, [0, 0.0]
    into = f"INSERT OR IGNORE INTO answers VALUES ({', '.join('?' * 12)})"
    new.execute("BEGIN")
    with contextlib.closing(_untouched(old)) as db:
        with contextlib.suppress(sqlite3.Error, TypeError, ValueError):
            for row in db.execute("SELECT * FROM answers"):
                Reply(**json.loads(row[5]))
                new.execute(into, row)
                saved, cost = saved + 1, cost + row[9]
        with contextlib.suppress(sqlite3.Error):
            unseen = "SELECT most_usd FROM lost UNION ALL SELECT most_usd FROM flights"
            lost = db.execute(f"SELECT count(*), total(most_usd) FROM ({unseen})").fetchone()
    sums = [saved, cost, *lost, 0, 0.0]
    new.execute("UPDATE notes SET value = ? WHERE name = 'money'", (json.dumps(sums),))
    new.execute("COMMIT")
    return saved
