"""What a run leaves on disk, and how it gets there so that a kill at any moment does no harm."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from alto_policy.types import JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.files.artifacts import (
    Artifact,
    FolderArtifact,
    StoredArtifact,
    is_temporary,
    write_atomically,
)
from alto_runs.files.lines import as_found, check_plain
from alto_runs.files.logfile import LogWriter, read_run_log

__all__ = [
    "LogWriter",
    "RunDirectory",
    "adapter_place",
    "checked_name",
    "is_plain_name",
    "read_run_log",
    "runs_below",
    "seed_folder",
    "seeds_of",
    "write_atomically",
]

_LOG, _STUDY, _STORED_AT = "run.jsonl", "study.yaml", "artifacts"
_JOBS, _CHECKPOINTS, _WRITERS = "jobs", "checkpoints", "writers"
_SEED = "seed-"  # and its number
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # as a path has it, of whose slashes one is left
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def _may_precede_a_study(name: str) -> bool:
    """Whether a run that was killed before it had its study may have left this."""
    return name == _STORED_AT or any(is_temporary(name, of) for of in (_STORED_AT, _STUDY))


def is_plain_name(name: str) -> bool:
    """Whether a name is safe as the name of a file: it cannot lead out of its folder."""
    return _PLAIN_NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Names of the files of one run; `create` and `open` check that they are what they seem.

    A file of lines has the name under which it is there: compressed if it is so alone. What the
    jobs write is in the folder too, or at the URL `stored_at`.
    """

    path: Path
    stored_at: str | None = None
    writer: str | None = None  # an executor of a task, which writes while nobody has succeeded it

    @classmethod
    def create(cls, path: Path, stored_at: str | None = None) -> "RunDirectory":
        """A new folder, or an empty one; raises UserError rather than touch what is there."""
        if _URL.match(str(path)):
            raise UserError(
                f"{path}: is a URL, expected a folder on a disk; what jobs write, and results, go "
                "to a URL by --artifacts, or artifacts: in the settings of a service"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            is_used = any(path.iterdir())
        except (FileExistsError, NotADirectoryError) as error:
            raise UserError(f"{path}: is a file, expected a new or empty folder") from error
        except OSError as error:
            raise UserError(f"{path}: cannot make this folder: {error.strerror}") from error
        if is_used:
            told = f"{path}: the folder is not empty, expected a new or empty one"
            found = cls(path)
            trains = found.log_path.is_file() and found.study_path.is_file()
            raise UserError(told + (", or --resume to go on with its run" if trains else ""))
        directory = cls(path, stored_at)
        directory.note_store()
        return directory

    @classmethod
    def reopen(cls, path: Path, stored_at: str | None = None) -> "RunDirectory":
        """The folder of a run that was begun, or that may begin there; raises UserError."""
        directory = cls.known(path)
        if directory.study_path.is_file():
            for written in (directory.log_path, directory.work_path, directory.lengths_path):
                check_plain(written)
            if stored_at not in (None, directory.stored_at):
                raise UserError(
                    f"--artifacts: value {stored_at!r}: the run was begun with "
                    f"{directory.stored_at or 'its artifacts in its folder'}"
                )
            return directory
        found = tuple(path.iterdir()) if path.is_dir() else ()
        if not found:
            return cls.create(path, stored_at)
        if not all(_may_precede_a_study(each.name) for each in found):
            raise UserError(
                f"{path}: no run was begun in this folder, expected one with the file "
                f"{directory.study_path.name}, or an empty one"
            )
        directory = cls(path, stored_at or directory.stored_at)
        directory.note_store()
        return directory

    @classmethod
    def known(cls, path: Path) -> "RunDirectory":
        """The folder of a run, with what it says of where its artifacts are."""
        try:
            return cls(path, (path / _STORED_AT).read_text(encoding="utf-8"))
        except OSError:
            return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """The folder of a run that was begun; raises UserError if it holds none."""
        directory = cls.known(path)
        if not os.path.isfile(directory.log_path):  # unlike Path's own, takes names too long
            name = directory.log_path.name
            raise UserError(f"{path}: no run here, expected a folder with the file {name}")
        return directory

    def note_store(self) -> None:
        """For whoever reads the run later, and knows its folder alone."""
        if self.stored_at is not None:
            write_atomically(self.path / _STORED_AT, self.stored_at)

    def absolute(self) -> "RunDirectory":
        """For processes that may begin elsewhere."""
        return replace(self, path=self.path.absolute())

    def sweep(self) -> None:
        """Remove what a killed process was still writing. For the process that holds the log."""
        FolderArtifact(self.path).remove_partial()

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
        return self.path / _STUDY

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
    def artifacts(self) -> Artifact:
        """What the jobs write: their states and adapters."""
        writer = None if self.writer is None else f"{_WRITERS}/{self.writer}"
        if self.stored_at is None:
            return FolderArtifact(self.path, None if writer is None else self.path / writer)
        return StoredArtifact(self.stored_at, writer and f"{self.stored_at}/{writer}")

    @property
    def writers(self) -> Artifact:
        """A folder for each executor that may write; one for which there is none may not."""
        return replace(self, writer=None).artifacts / _WRITERS

    @property
    def meetings(self) -> Artifact:
        """Where the ranks of an executor on several nodes find each other."""
        return self.artifacts / "meetings"

    @property
    def jobs(self) -> Artifact:
        return self.artifacts / _JOBS

    def adapter(self, job: JobId) -> Artifact:
        """The job's adapter of the best validation loss, a folder in PEFT's format."""
        return self.artifacts / adapter_place(job)

    @property
    def checkpoints(self) -> Artifact:
        return self.artifacts / _CHECKPOINTS

    def checkpoint(self, job: JobId) -> Artifact:
        """What the job needs to go on."""
        return self.checkpoints / f"{checked_name(job)}.safetensors"

    def drop_checkpoint(self, job: JobId) -> None:
        """The job goes on no more. A store is not made to wait for: it keeps all until the end."""
        if self.stored_at is None:
            self.checkpoint(job).remove()

    def job_folder(self, job: JobId) -> Path:
        """Where the job's adapter is, if artifacts are in the run's folder."""
        return self.path / adapter_place(job)

    @property
    def best_path(self) -> Path:
        return self.path / "best"

    def best_folder(self, task: TaskId) -> Path:
        """The task's best adapter, in PEFT's format."""
        return self.best_path / checked_name(task)


def adapter_place(job: JobId) -> str:
    """Of the job's adapter, seen from where the run's artifacts are."""
    return f"{_JOBS}/{checked_name(job)}"


def runs_below(folder: Path) -> list[Path]:
    """The folders of runs, however deep, in the order of their paths."""
    runs = {path.parent for path in folder.rglob(f"{_LOG}*")}
    return sorted(run for run in runs if RunDirectory(run).log_path.is_file())


def seeds_of(folder: Path) -> list[Path]:
    """The runs of `simulate --seeds` in it, or else the folder itself."""
    seeds = {run: run.name.removeprefix(_SEED) for run in folder.glob(f"{_SEED}*")}
    found = [run for run, seed in seeds.items() if seed.isdecimal()]
    return sorted(found, key=lambda run: int(seeds[run])) or [folder]


def seed_folder(folder: Path, seed: int) -> Path:
    return folder / f"{_SEED}{seed}"


def checked_name(name: str) -> str:
    """The name, safe as that of a file; raises UserError."""
    if not is_plain_name(name):
        raise UserError(
            f"name {name!r}: expected letters, digits, '.', '_' and '-', "
            "100 of them at most, the first no '.' or '-'"
        )
    return name
