"""What a run has come to, copied to any path that fsspec knows: a shared disk, an object store."""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alto_runs.directory import RunDirectory
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["Shelf"]

_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder that many may read. A file in it is whole, and with the leaderboard all is there.

    Every method raises UserError, which begins with `field`.
    """

    field: str
    url: str
    files: "AbstractFileSystem"
    root: str

    @classmethod
    def at(cls, url: str, field: str) -> "Shelf":
        """Of the URL, or the path on this machine, that stands in a field or after a flag."""
        from fsspec.core import url_to_fs

        try:
            files, root = url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            raise UserError(f"{field}: value {url!r}: {_line(error)}") from error
        return cls(field, url, files, root.rstrip("/"))

    def below(self, name: str) -> "Shelf":
        return replace(self, url=f"{self.url.rstrip('/')}/{name}", root=f"{self.root}/{name}")

    def claim(self, study: str, is_own: Callable[[str], bool]) -> None:
        """Begin with the text of the study file: whether this can be written is found out before
        anything trains. Another text that is there must be the run's own too."""
        path = f"{self.root}/{RunDirectory(Path()).study_path}"
        try:
            there = self.files.cat_file(path) if self.files.exists(path) else None
            if there is not None and not is_own(there.decode(errors="replace")):
                raise UserError(
                    f"{self.field}: value {self.url!r}: another run was published there, expected "
                    "a place of its own"
                )
            if there != study.encode():
                self._prepare(path)
                self.files.pipe_file(_partial(path), study.encode())
                self.files.mv(_partial(path), path)
        except OSError as error:
            raise self._failure(error) from error

    def publish(self, directory: RunDirectory) -> None:
        """Copy the run's results: its log, metrics, best adapters, and last its leaderboard."""
        try:
            for path in _results(directory):
                there = f"{self.root}/{path.relative_to(directory.path).as_posix()}"
                self._prepare(there)
                self.files.put_file(str(path), _partial(there))
                self.files.mv(_partial(there), there)
        except OSError as error:
            raise self._failure(error) from error

    def _prepare(self, path: str) -> None:
        """Make the folder of a file, where folders are something to be made."""
        self.files.makedirs(posixpath.dirname(path), exist_ok=True)

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"{self.field}: value {self.url!r}: cannot write there: {_line(error)}")


def _results(directory: RunDirectory) -> Iterator[Path]:
    """In the order in which they are copied."""
    best = (path for path in sorted(directory.best_path.rglob("*")) if path.is_file())
    single = (directory.log_path, directory.metrics_path, directory.comparison_path)
    yield from (*best, *(path for path in single if path.is_file()))
    yield directory.leaderboard_path


def _partial(path: str) -> str:
    folder, name = posixpath.split(path)
    return f"{folder}/.{name}{_PARTIAL}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
