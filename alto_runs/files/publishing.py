"""What a run has come to, copied to any path that fsspec knows: a shared disk, an object store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from alto_runs.errors import UserError
from alto_runs.files.artifacts import StoredArtifact
from alto_runs.files.directory import RunDirectory

__all__ = ["Shelf"]


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder that many may read. A file in it is whole, and with the leaderboard all is there.

    Every method raises UserError, which begins with `field`.
    """

    field: str
    root: StoredArtifact

    @classmethod
    def at(cls, url: str, field: str) -> "Shelf":
        """Of the URL, or the path on this machine, that stands in a field or after a flag."""
        return cls(field, StoredArtifact.at(url, field))

    def below(self, name: str) -> "Shelf":
        return replace(self, root=self.root / name)

    def claim(self, study: str, is_own: Callable[[str], bool]) -> None:
        """Begin with the text of the study file: whether this can be written is found out before
        anything trains. Another text that is there must be the run's own too."""
        with self._telling():
            there = self.study()
            if there is not None and not is_own(there):
                raise UserError(
                    f"{self.field}: value {self.root.url!r}: another run was published there, "
                    "expected a place of its own"
                )
            if there != study:
                (self.root / _STUDY).write(study)

    def study(self) -> str | None:
        """The text of the study file that is there."""
        with self._telling():
            try:
                with (self.root / _STUDY).fetched() as path:
                    return path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return None

    def publish(self, directory: RunDirectory) -> None:
        """Copy the run's results: its log, metrics, best adapters, and last its leaderboard."""
        with self._telling():
            for path in _results(directory):
                there = self.root / path.relative_to(directory.path).as_posix()
                there.write(path)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            line = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{self.field}: value {self.root.url!r}: cannot write there: {line}"
            ) from error


_STUDY = RunDirectory(Path()).study_path.name


def _results(directory: RunDirectory) -> Iterator[Path]:
    """In the order in which they are copied."""
    best = (path for path in sorted(directory.best_path.rglob("*")) if path.is_file())
    single = (directory.log_path, directory.metrics_path, directory.comparison_path)
    yield from (*best, *(path for path in single if path.is_file()))
    yield directory.leaderboard_path
