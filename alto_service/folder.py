"""What a service keeps on disk, and the names by which it knows its studies."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from alto_policy.types import TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory

__all__ = ["ServiceDirectory", "number_of", "number_of_task", "study_id"]

_STUDY_ID = re.compile(r"s([1-9][0-9]{0,9})")


def study_id(number: int) -> str:
    return f"s{number}"


def number_of(name: str) -> int | None:
    """The number of the study that may have this name."""
    found = _STUDY_ID.fullmatch(name)
    return int(found[1]) if found else None


def number_of_task(task: TaskId) -> int:
    """The number of the study that a task of the service is part of."""
    number = number_of(task.partition(".")[0])
    assert number is not None
    return number


@dataclass(frozen=True, slots=True)
class ServiceDirectory:
    """One log for all studies, and a folder for each of them; what jobs write may be at a URL."""

    path: Path
    stored_at: str | None = None

    @classmethod
    def open(cls, path: Path) -> "ServiceDirectory":
        """The folder of a service, or a new or empty one, for its owner alone; raises UserError."""
        directory = cls(path)
        if not directory.store_path.is_file():
            RunDirectory.create(path)
            path.chmod(0o700)
        return directory

    @contextmanager
    def held(self) -> Iterator[None]:
        """For one service at a time; raises UserError while another one holds it."""
        with (self.path / "service.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{self.path}: another service uses this folder") from error
            yield

    @property
    def run(self) -> RunDirectory:
        """Holds the log; what the jobs have written is with their studies."""
        return RunDirectory(self.path, self.stored_at)

    @property
    def store_path(self) -> Path:
        return self.path / "service.sqlite"

    @property
    def executor_path(self) -> Path:
        """What was chosen once for all studies that leave it open."""
        return self.path / "executor.yaml"

    def study(self, number: int) -> RunDirectory:
        name = study_id(number)
        stored_at = None if self.stored_at is None else f"{self.stored_at}/{name}"
        return RunDirectory(Path(os.path.abspath(self.path)) / "studies" / name, stored_at)

    def study_of_task(self, task: TaskId) -> RunDirectory:
        return self.study(number_of_task(task))
