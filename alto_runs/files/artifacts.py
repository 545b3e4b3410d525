"""What a run's jobs have come to: files in its folder, or on any path that fsspec knows."""

import logging
import os
import posixpath
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar
from uuid import uuid4

from alto_runs.errors import UserError
from alto_runs.files.exchanging import take_name
from alto_runs.files.scratch import held_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = [
    "LEAVE",
    "Artifact",
    "BarredError",
    "FolderArtifact",
    "StoredArtifact",
    "is_temporary",
    "write_atomically",
]

_Found = TypeVar("_Found")

log = logging.getLogger(__name__)

_TEMPORARY, _PARTIAL = ".tmp", ".partial"
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between attempts: a store may be away for a moment
_PART_BYTES = 2**24  # of a file, in memory at a time
LEAVE = "leave"  # a file in the folder of whoever may write


class BarredError(OSError):
    """Whoever wrote has been succeeded by another, and nothing of it gets its name any more."""


_CERTAIN = (
    BarredError,
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
)

Data = str | bytes | Path | Iterable[str | bytes | memoryview]  # a path stands for that file's


class Artifact(Protocol):
    """A file, or a folder of them. A file is whole or not there; it is read and written by whoever
    trains the job, on any node. Raises OSError, of which FileNotFoundError is one."""

    def __truediv__(self, name: str) -> "Artifact": ...

    def write(self, data: Data) -> None:
        """Replace the file at once: a reader finds the old content or the new one."""
        ...

    def fetched(self) -> AbstractContextManager[Path]:
        """A file of this machine with its content."""
        ...

    def beginning(self, count: int) -> bytes:
        """The first bytes, so many at most."""
        ...

    def remove(self) -> None:
        """With all that is below; nothing happens where it is not there."""
        ...

    def names(self) -> frozenset[str]:
        """Of the files below, such as `a/adapter_config.json`."""
        ...


def write_atomically(path: Path, data: Data) -> None:
    """Write under a temporary name and rename: a reader finds the old content or the new one.

    The data may come in parts. Makes the folder if need be.
    """
    _write(path, data, _beside(path), os.replace)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")


def is_temporary(name: str, of: str) -> bool:
    """Whether it is that of a file `of` which a process was writing."""
    return re.fullmatch(rf"\.{re.escape(of)}\.\d+{re.escape(_TEMPORARY)}", name) is not None


def _write(path: Path, data: Data, temporary: Path, rename: Callable[[Path, Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            for part in _parts(data):
                file.write(part)
        rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class FolderArtifact:
    """On a disk of this machine, which other nodes may see as well.

    A writer's files are made in a folder of its own: when that is removed, no file that it is in
    the middle of can get its name.
    """

    path: Path
    writer: Path | None = None

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> "FolderArtifact":
        return FolderArtifact(self.path / name, self.writer)

    def write(self, data: Data) -> None:
        if self.writer is None:
            _write(self.path, data, _beside(self.path), take_name)
            return
        try:
            _write(self.path, data, self.writer / uuid4().hex, take_name)
        except OSError as error:
            if self.writer.exists():
                raise
            raise BarredError(f"{self}: its writer has been succeeded") from error

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        yield self.path

    def beginning(self, count: int) -> bytes:
        with self.path.open("rb") as file:
            return file.read(count)

    def remove(self) -> None:
        if self.path.is_dir():
            aside = self.path.with_name(f".{self.path.name}.{uuid4().hex}{_TEMPORARY}")
            with suppress(FileNotFoundError):  # whoever still writes there keeps it from nothing
                self.path.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    def names(self) -> frozenset[str]:
        files = (path for path in self.path.rglob("*") if path.is_file())
        return frozenset(path.relative_to(self.path).as_posix() for path in files)

    def remove_partial(self) -> None:
        """What killed processes were still writing, below this. Nobody writes now."""
        for leftover in tuple(self.path.rglob(f".*{_TEMPORARY}")):
            FolderArtifact(leftover).remove()


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """At a URL of fsspec's. A file is written under a name of its own, and then gets its name: if
    its writer has leave, which is looked up right before.

    What fails is tried again for a while, unless it cannot succeed.
    """

    url: str
    writer: str | None = None

    @classmethod
    def at(cls, url: str, field: str) -> "StoredArtifact":
        """Raises UserError, which begins with `field`, for a URL that fsspec does not know. A path
        on this machine is made absolute: other processes begin elsewhere."""
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        try:
            files, path = url_to_fs(url)
        except (ImportError, ValueError, OSError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"{field}: value {url!r}: {line}") from error
        if isinstance(files, LocalFileSystem):
            url = f"file://{path}" if "://" in url else str(path)
        return cls(url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "StoredArtifact":
        return StoredArtifact(f"{self.url}/{name}", self.writer)

    def write(self, data: Data) -> None:
        # Another attempt has need of it: of parts that are there anyway, or a file to read again.
        again = data if isinstance(data, str | bytes | Path) else list(_parts(data))

        def attempt(files: "AbstractFileSystem", path: str) -> None:
            folder, name = posixpath.split(path)
            partial = f"{folder}/.{name}.{uuid4().hex}{_PARTIAL}"
            files.makedirs(folder, exist_ok=True)  # where folders are something to be made
            try:
                with files.open(partial, "wb") as file:
                    for part in _parts(again):
                        file.write(part)
                self._check_leave()
                files.mv(partial, path)
            except BaseException:
                with suppress(Exception):  # what went wrong is told, not what came of it
                    files.rm(partial)
                raise

        self._do(attempt)

    @contextmanager
    def fetched(self) -> Iterator[Path]:
        with held_folder() as folder:
            here = folder / posixpath.basename(self.url)
            self._do(lambda files, path: files.get_file(path, str(here)))
            yield here

    def beginning(self, count: int) -> bytes:
        found: bytes = self._do(lambda files, path: files.cat_file(path, start=0, end=count))
        return found

    def remove(self) -> None:
        with suppress(FileNotFoundError):
            self._do(lambda files, path: files.rm(path, recursive=True))

    def names(self) -> frozenset[str]:
        return frozenset(name for name in self._all_names() if not name.endswith(_PARTIAL))

    def remove_partial(self) -> None:
        """What killed processes were still writing, below this. Nobody writes now."""
        for name in self._all_names():
            if name.endswith(_PARTIAL):
                (self / name).remove()

    def _all_names(self) -> frozenset[str]:
        def attempt(files: "AbstractFileSystem", path: str) -> frozenset[str]:
            files.invalidate_cache()  # others write there
            found: list[str] = files.find(path)
            return frozenset(each.removeprefix(path).lstrip("/") for each in found)

        return self._do(attempt)

    def _check_leave(self) -> None:
        if self.writer is None:
            return
        try:
            StoredArtifact(f"{self.writer}/{LEAVE}").beginning(1)
        except FileNotFoundError as error:
            raise BarredError(f"{self}: its writer has been succeeded") from error

    def _resolved(self) -> tuple["AbstractFileSystem", str]:
        """Each thread has a connection of its own, which fsspec keeps."""
        from fsspec.core import url_to_fs

        files, path = url_to_fs(self.url)
        return files, str(path)

    def _do(self, attempt: Callable[["AbstractFileSystem", str], _Found]) -> _Found:
        for pause in (*_PAUSES, None):
            try:
                return attempt(*self._resolved())
            except _CERTAIN:
                raise
            except Exception as error:  # stores have errors of their own
                if pause is None:
                    raise OSError(f"{self.url}: {' '.join(str(error).split())}") from error
                log.warning("%s: %s; another attempt follows", self.url, error)
                time.sleep(pause)
        raise AssertionError


def _parts(data: Data) -> Iterator[bytes | memoryview]:
    if isinstance(data, Path):
        with data.open("rb") as file:
            while read := file.read(_PART_BYTES):
                yield read
        return
    for part in [data] if isinstance(data, str | bytes) else data:
        yield part.encode() if isinstance(part, str) else part
