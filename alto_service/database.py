"""The SQLite file in which the parts of a service hand their work to each other.

Each part may be killed at any moment: what a transaction has committed is on the disk, and what
it has not never was.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["Connection", "State", "StudyRow", "create_tables"]

_BUSY_SECONDS = 20.0  # that a transaction waits for those of others
_TABLES = """
CREATE TABLE IF NOT EXISTS studies (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    name TEXT NOT NULL,
    priority INTEGER NOT NULL,
    document TEXT NOT NULL,
    folder TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    state TEXT NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    tasks TEXT NOT NULL DEFAULT '[]',
    progress TEXT NOT NULL DEFAULT '{"jobs":{},"best":null}',
    error TEXT,
    ended_at REAL,
    UNIQUE (tenant, key)
) STRICT;
CREATE INDEX IF NOT EXISTS studies_by_state ON studies (state, number);
CREATE TABLE IF NOT EXISTS entries (
    study INTEGER NOT NULL,
    entry INTEGER NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (study, entry)
) STRICT, WITHOUT ROWID;
"""


class State(StrEnum):
    SUBMITTED = "submitted"  # its files are still to be read
    CHECKED = "checked"  # its tasks are known, and on their way to the policy
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"  # its files cannot be trained on
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (State.DONE, State.REFUSED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study, as the table has it; times are in seconds since 1970."""

    number: int
    tenant: str
    key: str
    digest: str
    name: str
    priority: int
    document: str
    folder: str
    submitted_at: float
    state: State
    cancelled: bool  # somebody has asked for it
    attempts: int  # at reading its files, or at training it after it had failed
    tasks: str  # JSON
    progress: str  # JSON
    error: str | None
    ended_at: float | None

    @classmethod
    def of(cls, row: sqlite3.Row) -> "StudyRow":
        fields: dict[str, Any] = dict(row)
        fields["state"], fields["cancelled"] = State(row["state"]), bool(row["cancelled"])
        return cls(**fields)


class Connection:
    """To be shared by the threads of one process."""

    def __init__(self, path: Path, *, is_durable: bool) -> None:
        """With `is_durable` a transaction is on the disk when it returns, power cut or not."""
        self._lock = threading.Lock()
        self._sqlite = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._sqlite.row_factory = sqlite3.Row
        self._sqlite.execute("PRAGMA journal_mode = WAL")
        self._sqlite.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._sqlite.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; no other process writes in the meantime."""
        with self._lock:
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield self._sqlite
            except BaseException:
                self._sqlite.execute("ROLLBACK")
                raise
            self._sqlite.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._sqlite.close()


def create_tables(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_TABLES)
    finally:
        connection.close()
