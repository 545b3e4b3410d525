"""Folders for files of this machine that no process needs when it has ended, killed or not.

Whoever has made one holds a lock on it, which ends with its last process: what nobody holds is
swept away by the next who begins. Needs the standard library alone: it goes to Ray's processes.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["held_folder", "hold_folder", "sweep_folders"]

_PREFIX = "alto-held-"


@contextmanager
def held_folder() -> Iterator[Path]:
    """Is removed in the end."""
    path, lock = hold_folder()
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def hold_folder() -> tuple[str, int]:
    """Its path, and a descriptor that holds it as long as it is open here or in a fork."""
    while True:  # until it is not swept away before it is held
        path = tempfile.mkdtemp(prefix=_PREFIX)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # some file systems know no locks: nobody sweeps there either
            fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.isdir(path):
            return path, lock
        os.close(lock)


def sweep_folders() -> None:
    """Remove all that nobody holds."""
    for name in os.listdir(tempfile.gettempdir()):
        if name.startswith(_PREFIX):
            _remove_if_nobodys(os.path.join(tempfile.gettempdir(), name))


def _remove_if_nobodys(path: str) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # another's, or gone
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # somebody holds it
    finally:
        os.close(lock)
