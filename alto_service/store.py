"""What the HTTP side asks of the database."""

import hashlib
import json
import sqlite3
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alto_service.database import Connection, State, StudyRow, create_tables

__all__ = ["KeyReusedError", "NewStudy", "Store"]


class KeyReusedError(Exception):
    """The client's key belongs to another submission of the same tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudy:
    """A submission whose document was found to be right."""

    tenant: str
    key: str
    name: str
    priority: int
    document: str
    folder: str

    @property
    def digest(self) -> str:
        content = "\0".join((self.document, self.folder, str(self.priority)))
        return hashlib.sha256(content.encode()).hexdigest()


class Store:
    """May be used by many threads."""

    def __init__(self, path: Path) -> None:
        create_tables(path)
        self._writer = Connection(path, is_durable=True)
        self._reader = Connection(path, is_durable=True)  # so that nobody waits for the disk

    def submit(self, study: NewStudy) -> tuple[StudyRow, bool]:
        """The study, which is on the disk now, and whether it is new: a key is taken once.

        Raises KeyReusedError.
        """
        with self._writer.transaction() as sqlite:
            known = sqlite.execute(
                "SELECT number FROM studies WHERE tenant = ? AND key = ?", (study.tenant, study.key)
            ).fetchone()
            number = _insert(sqlite, study) if known is None else known["number"]
            found = sqlite.execute("SELECT * FROM studies WHERE number = ?", (number,))
            row = StudyRow.of(found.fetchone())
        if row.digest != study.digest:
            raise KeyReusedError
        return row, known is None

    def study(self, number: int) -> StudyRow | None:
        rows = self._reader.rows("SELECT * FROM studies WHERE number = ?", number)
        return StudyRow.of(rows[0]) if rows else None

    def studies(
        self, *, tenant: str | None, state: State | None, after: int, limit: int
    ) -> Sequence[StudyRow]:
        """In the order of submission; of all tenants where none is named."""
        rows = self._reader.rows(
            "SELECT * FROM studies WHERE number > ? AND (? IS NULL OR tenant = ?) "
            "AND (? IS NULL OR state = ?) ORDER BY number LIMIT ?",
            *(after, tenant, tenant, state, state, limit),
        )
        return [StudyRow.of(row) for row in rows]

    def cancel(self, number: int) -> None:
        """Ask for it; whoever has the study in hand ends it."""
        with self._writer.transaction() as sqlite:
            sqlite.execute("UPDATE studies SET cancelled = 1 WHERE number = ?", (number,))

    def entries(self, number: int, *, after: int, limit: int) -> Sequence[tuple[int, str]]:
        """The study's part of the log: entries by their number in it, as JSON."""
        rows = self._reader.rows(
            "SELECT entry, line FROM entries WHERE study = ? AND entry > ? ORDER BY entry LIMIT ?",
            *(number, after, limit),
        )
        return [(row["entry"], row["line"]) for row in rows]

    def last_entries(self, numbers: Collection[int]) -> Mapping[int, int]:
        """Of those of these studies that may still grow; -1 where there is none yet."""
        rows = self._reader.rows(
            "SELECT number, state, "
            "(SELECT COALESCE(MAX(entry), -1) FROM entries WHERE study = number) AS last "
            "FROM studies WHERE number IN (SELECT value FROM json_each(?))",
            json.dumps(list(numbers)),
        )
        return {row["number"]: row["last"] for row in rows if not State(row["state"]).is_final}

    def close(self) -> None:
        self._writer.close()
        self._reader.close()


def _insert(connection: sqlite3.Connection, study: NewStudy) -> int | None:
    inserted = connection.execute(
        "INSERT INTO studies (tenant, key, digest, name, priority, document, folder, "
        "submitted_at, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            study.tenant,
            study.key,
            study.digest,
            study.name,
            study.priority,
            study.document,
            study.folder,
            time.time(),
            State.SUBMITTED,
        ),
    )
    return inserted.lastrowid
