"""A run's log as it grows, copied to where its artifacts are."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alto_runs.files.directory import RunDirectory, write_atomically
from alto_runs.files.publishing import Shelf

__all__ = ["mirrored", "recover"]

log = logging.getLogger(__name__)

_LEAST_SECONDS = 10.0  # between two copies
_SHARE = 0.05  # of the time may go into copying: a log may be long


@contextmanager
def mirrored(directory: RunDirectory) -> Iterator[None]:
    """Beside whatever is done within. The copy may lack the log's last lines."""
    if directory.stored_at is None:
        yield
        return
    is_over = threading.Event()
    copier = threading.Thread(target=_copy, args=(directory, is_over), name="log", daemon=True)
    copier.start()
    try:
        yield
    finally:
        is_over.set()
        copier.join()


def recover(directory: RunDirectory, shelf: Shelf) -> bool:
    """Begin the folder of a run that has lost its own with the copy of its log, if there is one; a
    log that is in the folder is the newer one. What the copy lacks is made again. Whether there was
    such a run. Raises UserError."""
    if directory.log_path.exists() or directory.study_path.exists():
        return False
    study, path = shelf.study(), directory.log_path
    if study is None:
        return False
    with suppress(FileNotFoundError), (shelf.root / path.name).fetched() as found:
        write_atomically(path, found)
    write_atomically(directory.study_path, study)
    return True


def _copy(directory: RunDirectory, is_over: threading.Event) -> None:
    pause, copied = _LEAST_SECONDS, 0
    there = directory.artifacts / directory.log_path.name
    while not is_over.wait(pause):
        size = directory.log_path.stat().st_size
        start = time.monotonic()
        if size != copied:
            try:
                there.write(directory.log_path)
                copied = size
            except OSError as error:  # the next copy has all that this one would have had
                log.warning("the log is not copied: %s", error)
        pause = max(_LEAST_SECONDS, (time.monotonic() - start) / _SHARE)
