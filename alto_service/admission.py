"""What a service takes of a study: data and models of its own folders, decided by its policy."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alto_policy.policies import Settings
from alto_runs.errors import UserError
from alto_runs.study import Study, parse_study

__all__ = ["Admission"]

_SOURCE = "study"  # what an error begins with, in place of the name of a file


@dataclass(frozen=True, slots=True)
class Admission:
    """`roots` are the folders that studies may name files in, links followed."""

    roots: tuple[Path, ...]
    policy: Settings

    @classmethod
    def of(cls, folders: Sequence[Path], policy: Settings) -> "Admission":
        """Raises UserError for a folder that is not there."""
        for folder in folders:
            if not folder.is_dir():
                raise UserError(f"--root: value {str(folder)!r}: there is no such folder")
        return cls(tuple(Path(os.path.realpath(folder)) for folder in folders), policy)

    def study(self, text: str, folder: str | None) -> Study:
        """The study of a document whose paths are seen from `folder`. Raises UserError."""
        base = self.roots[0] if folder is None else Path(folder)
        if "\0" in str(base) or not base.is_absolute() or not self._holds(base):
            raise UserError(f"folder: value {folder!r}: {self._expected('an absolute path')}")
        study = parse_study(text, _SOURCE, base)
        self.check(study)
        return study

    def check(self, study: Study) -> None:
        """Look again at what may have changed on disk since. Raises UserError."""
        if "policy" in study.model_fields_set and study.policy != self.policy:
            raise UserError(
                f"{_SOURCE}: policy: a service decides by a policy of its own, leave this out"
            )
        for field, path in _paths(study):
            if not self._holds(path):
                expected = self._expected("a file")
                raise UserError(f"{_SOURCE}: {field}: value {str(path)!r}: {expected}")
            # Unlike the methods of a path, these take names that are too long for one.
            if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
                raise UserError(f"{_SOURCE}: {field}: value {str(path)!r}: is no plain file")

    def _holds(self, path: Path) -> bool:
        real = Path(os.path.realpath(path))
        return any(real.is_relative_to(root) for root in self.roots)

    def _expected(self, what: str) -> str:
        return f"expected {what} below {' or '.join(str(root) for root in self.roots)}"


def _paths(study: Study) -> Iterator[tuple[str, Path]]:
    """All files and folders that a study names, with the fields that name them.

    A model that is not there under its name in this folder is one of the hub, from the cache.
    """
    for name, task in study.tasks.items():
        prefix = "" if len(study.tasks) == 1 else f"tasks.{name}."
        yield f"{prefix}data.train", task.data.train
        if task.data.validation is not None:
            yield f"{prefix}data.validation", task.data.validation
        if os.path.isabs(task.model) or os.path.exists(task.model):
            yield f"{prefix}model", Path(os.path.abspath(task.model))
