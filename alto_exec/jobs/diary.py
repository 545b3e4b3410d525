"""What an executor did, on its way to where the run's artifacts are."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from uuid import uuid4

from alto_runs.files.artifacts import Artifact
from alto_runs.files.directory import RunDirectory, write_atomically
from alto_runs.files.executor_work import Work, append_work, work_line

__all__ = ["Diary", "collect_work", "diary_of"]

log = logging.getLogger(__name__)

_FOLDER = "work"
_SECONDS = 10.0  # between two looks of the store at it


class Diary:
    """Lines in a folder's file, as they are told."""

    def __init__(self, directory: RunDirectory) -> None:
        self.tell: Callable[[Work], None] = partial(append_work, directory.work_path)

    def settle(self) -> None:
        """All that was told is there, but for what cannot be written."""


class _SentDiary(Diary):
    """A file of its own in a store, where nothing can be appended: written anew beside training."""

    def __init__(self, file: Artifact) -> None:
        self.tell = self._tell
        self._file = file
        self._lines: list[str] = []
        self._sender = ThreadPoolExecutor(1, "work")
        self._sending: Future[None] | None = None
        self._sent_at = time.monotonic()

    def settle(self) -> None:
        self._send()
        if self._sending is not None:
            self._sending.result()

    def _tell(self, work: Work) -> None:
        self._lines.append(work_line(work))
        is_idle = self._sending is None or self._sending.done()
        if is_idle and time.monotonic() - self._sent_at > _SECONDS:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        text = "".join(f"{line}\n" for line in self._lines)
        self._sending = self._sender.submit(self._write, text)

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:  # times alone are lost: nothing that a run ends by
            log.warning("what the executor did is not kept: %s", error)


def diary_of(directory: RunDirectory) -> Diary:
    """For an executor that begins now."""
    if directory.stored_at is None:
        return Diary(directory)
    name = f"{time.time_ns():020d}-{uuid4().hex}.jsonl"
    return _SentDiary(directory.artifacts / _FOLDER / name)


def collect_work(directory: RunDirectory) -> None:
    """What all executors have sent, in the order in which they began, into the run's folder."""
    if directory.stored_at is None:
        return
    folder, found = directory.artifacts / _FOLDER, list[bytes]()
    for name in sorted(folder.names()):
        with (folder / name).fetched() as file:
            found.append(file.read_bytes())
    write_atomically(directory.work_path, found)
