"""What those that check and train ask of the database."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from alto_policy.codec import codec_of
from alto_policy.types import Task
from alto_service.database import Connection, State, StudyRow

__all__ = ["Handover", "tasks_of"]

_TASKS = codec_of(tuple[Task, ...])
_FINAL = tuple(state.value for state in State if state.is_final)


def tasks_of(row: StudyRow) -> tuple[Task, ...]:
    """The tasks of a study that was checked."""
    tasks: tuple[Task, ...] = _TASKS.read(row.tasks)
    return tasks


class Handover:
    """One process at a time moves a study: the checker until it is checked, then the trainer."""

    def __init__(self, path: Path) -> None:
        self._durable = Connection(path, is_durable=True)
        self._quick = Connection(path, is_durable=False)  # what the log on disk holds as well

    def study(self, number: int) -> StudyRow:
        (row,) = self._quick.rows("SELECT * FROM studies WHERE number = ?", number)
        return StudyRow.of(row)

    def in_state(self, *states: State) -> Sequence[StudyRow]:
        """In the order of submission."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT * FROM studies WHERE state IN ({marks}) ORDER BY number"
        return [StudyRow.of(row) for row in self._quick.rows(query, *states)]

    def cancelled(self) -> Sequence[int]:
        """Studies that the policy knows, or is about to, and that nobody wants."""
        rows = self._quick.rows(
            "SELECT number FROM studies WHERE cancelled = 1 AND state IN (?, ?, ?) ORDER BY number",
            *(State.CHECKED, State.QUEUED, State.RUNNING),
        )
        return [row["number"] for row in rows]

    def version(self) -> int:
        """Changes whenever another process has committed."""
        (row,) = self._quick.rows("PRAGMA data_version")
        return int(row[0])

    def attempt(self, number: int) -> int:
        """Count one more before it is made; returns their number."""
        with self._durable.transaction() as sqlite:
            sqlite.execute("UPDATE studies SET attempts = attempts + 1 WHERE number = ?", (number,))
        return self.study(number).attempts

    def admit(self, number: int, tasks: Sequence[Task]) -> None:
        """The study is checked, and these are its tasks."""
        with self._durable.transaction() as sqlite:
            sqlite.execute(
                "UPDATE studies SET state = ?, tasks = ?, attempts = 0 WHERE number = ?",
                (State.CHECKED, _TASKS.dump(tuple(tasks)), number),
            )

    def move(self, number: int, state: State) -> None:
        """To a state that is not the last; one that has ended stays so."""
        with self._quick.transaction() as sqlite:
            sqlite.execute(
                f"UPDATE studies SET state = ? WHERE number = ? AND state NOT IN {_FINAL}",
                (state, number),
            )

    def fail(self, number: int, error: str) -> None:
        """It is to be ended, for this reason; the first one that is told stays."""
        with self._durable.transaction() as sqlite:
            sqlite.execute(
                "UPDATE studies SET cancelled = 1, error = coalesce(error, ?) WHERE number = ?",
                (error, number),
            )

    def end(self, number: int, state: State, error: str | None = None) -> None:
        with self._durable.transaction() as sqlite:
            sqlite.execute(
                "UPDATE studies SET state = ?, error = coalesce(error, ?), ended_at = ? "
                "WHERE number = ?",
                (state, error, time.time(), number),
            )

    def record(
        self, lines: Iterable[tuple[int, int, str]], progress: Iterable[tuple[int, str]]
    ) -> None:
        """Entries as (study, number of the entry, JSON), and how far studies have come."""
        with self._quick.transaction() as sqlite:
            sqlite.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", lines)
            sqlite.executemany(
                "UPDATE studies SET progress = ? WHERE number = ?",
                [(text, number) for number, text in progress],
            )

    def last_entry(self) -> int:
        """The highest number of an entry that is recorded, or -1."""
        (row,) = self._quick.rows("SELECT max(entry) AS last FROM entries")
        return -1 if row["last"] is None else int(row["last"])
