"""What a run leaves on disk, and how it gets there so that a kill at any moment does no harm."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alto_policy.types import JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.lines import as_found, check_plain
from alto_runs.logfile import LogWriter, read_run_log

__all__ = [
    "LogWriter",
    "RunDirectory",
    "checked_name",
    "is_plain_name",
    "read_run_log",
    "runs_below",
    "write_atomically",
]

_TEMPORARY = ".tmp"
_LOG = "run.jsonl"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # as a path has it, of whose slashes one is left
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as the name of a file: it cannot lead out of its folder."""
    return _PLAIN_NAME.fullmatch(name) is not None


def write_atomically(path: Path, data: str | bytes | Iterable[str | bytes | memoryview]) -> None:
    """Write under a temporary name and rename: a reader finds the old content or the new one.

    The data may come in parts. Makes the folder if need be.
    """
    parts = [data] if isinstance(data, str | bytes) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part.encode() if isinstance(part, str) else part)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Names of the files of one run; `create` and `open` check that they are what they seem.

    A file of lines has the name under which it is there: compressed if it is so alone.
    """

    path: Path

    @classmethod
    def create(cls, path: Path) -> "RunDirectory":
        """A new folder, or an empty one; raises UserError rather than touch what is there."""
        if _URL.match(str(path)):
            raise UserError(
                f"{path}: is a URL, expected a folder on a disk; results are copied to a URL by "
                "--publish, or publish: in the settings of a service"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            is_used = any(path.iterdir())
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{path}: is a file, expected a new or empty folder") from error
        except OSError as error:
            raise UserError(f"{path}: cannot make this folder: {error.strerror}") from error
        if is_used:
            raise UserError(f"{path}: the folder is not empty, expected a new or empty one")
        return cls(path)

    @classmethod
    def reopen(cls, path: Path) -> "RunDirectory":
        """The folder of a run that was begun, or that may begin there; raises UserError."""
        directory = cls(path)
        if directory.study_path.is_file():
            for written in (directory.log_path, directory.work_path, directory.lengths_path):
                check_plain(written)
            return directory
        if path.is_dir() and any(path.iterdir()):
            raise UserError(
                f"{path}: no run was begun in this folder, expected one with the file "
                f"{directory.study_path.name}, or an empty one"
            )
        return cls.create(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The folder of a run that was begun; raises UserError if it holds none."""
        directory = cls(path)
        if not os.path.isfile(directory.log_path):  # unlike Path's own, takes names too long
            name = directory.log_path.name
            raise UserError(f"{path}: no run here, expected a folder with the file {name}")
        return directory

    def sweep(self) -> None:
        """Remove what a killed process was still writing. For the process that holds the log."""
        for leftover in self.path.rglob(f".*{_TEMPORARY}"):
            leftover.unlink()

    @property
    def log_path(self) -> Path:
        return as_found(self.path / _LOG)

    @property
    def work_path(self) -> Path:
        """What the executors did, and how long it took."""
        return as_found(self.path / "work.jsonl")

    @property
    def lengths_path(self) -> Path:
        """How long the samples of its data are."""
        return as_found(self.path / "lengths.jsonl")

    @property
    def study_path(self) -> Path:
        return self.path / "study.yaml"

    @property
    def leaderboard_path(self) -> Path:
        return self.path / "leaderboard.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.json"

    @property
    def comparison_path(self) -> Path:
        return self.path / "comparison.json"

    @property
    def jobs_path(self) -> Path:
        return self.path / "jobs"

    def job_folder(self, job: JobId) -> Path:
        """The job's adapter of the best validation loss, in PEFT's format."""
        return self.jobs_path / checked_name(job)

    @property
    def best_path(self) -> Path:
        return self.path / "best"

    def best_folder(self, task: TaskId) -> Path:
        """The task's best adapter, in PEFT's format."""
        return self.best_path / checked_name(task)

    def checkpoint_path(self, job: JobId) -> Path:
        """What the job needs to go on."""
        return self.path / "checkpoints" / f"{checked_name(job)}.safetensors"


def runs_below(folder: Path) -> list[Path]:
    """The folders of runs, however deep, in the order of their paths."""
    runs = {path.parent for path in folder.rglob(f"{_LOG}*")}
    return sorted(run for run in runs if RunDirectory(run).log_path.is_file())


def checked_name(name: str) -> str:
    """The name, safe as that of a file; raises UserError."""
    if not is_plain_name(name):
        raise UserError(
            f"name {name!r}: expected letters, digits, '.', '_' and '-', "
            "100 of them at most, the first no '.' or '-'"
        )
    return name
