"""The run log on disk."""

import fcntl
import json
import logging
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from alto_policy.runlog import (
    CorruptLogError,
    Entry,
    Header,
    RunLog,
    dump_entry,
    dump_header,
    load,
)
from alto_runs.errors import UserError
from alto_runs.files.lines import check_plain, open_lines

__all__ = ["LogWriter", "read_header", "read_run_log"]

log = logging.getLogger(__name__)


def read_run_log(path: Path) -> RunLog:
    """A log or a trace; a torn last line is left out and told in `torn`.

    Raises UserError with the line that is not what was written.
    """
    return _read(path, None)


def read_header(path: Path) -> Header | None:
    """Of a log that may be long, by its first line alone. Raises UserError."""
    return _read(path, 1).header


def _read(path: Path, most_lines: int | None) -> RunLog:
    try:
        with open_lines(path) as lines:
            return load(islice(lines, most_lines))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a run log: {error.reason}") from error
    except CorruptLogError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this log: {error.strerror}") from error


class LogWriter:
    """Appends to a log; each line is with the operating system when its `write` returns.

    A last line that a kill has torn is dropped first; `torn` keeps it. Raises UserError if another
    process writes to the same log, or if it is compressed.
    """

    def __init__(self, path: Path) -> None:
        check_plain(path)
        self.torn: str | None = None
        self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mend(path)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(f"{path}: another process is writing to this run") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write_header(self, header: Header) -> None:
        self._write([dump_header(header)])

    def write_entry(self, entry: Entry) -> None:
        self._write([dump_entry(entry)])

    def write_entries(self, entries: Iterable[Entry]) -> None:
        """In one go, for a run that nobody would resume."""
        self._write([dump_entry(entry) for entry in entries])

    def _write(self, lines: list[str]) -> None:
        lines.append("")  # the last line ends as well
        data = memoryview("\n".join(lines).encode())
        while data:  # the file has no buffer, and the system may take less than all
            data = data[self._file.write(data) :]

    def _mend(self, path: Path) -> None:
        """Drop a last line that is no JSON, as `load` does; end one that only lacks its end."""
        start, line = _last_line(self._file)
        if not line.strip():
            self._file.truncate(start)
        elif not _is_json(line):
            self.torn = line.decode("utf-8", errors="replace").rstrip("\n")
            self._file.truncate(start)
            log.warning("%s: dropped its last line, which was cut short", path)
        elif not line.endswith(b"\n"):
            self._file.write(b"\n")


def _last_line(file: BinaryIO) -> tuple[int, bytes]:
    """Where the last line that is not blank begins, and what stands from there to the end."""
    end = file.seek(0, os.SEEK_END)
    size, tail = 1 << 16, b""
    while len(tail) < end:
        start = max(0, end - size)
        file.seek(start)
        tail = file.read(end - start)
        line_start = tail.rstrip().rfind(b"\n") + 1
        if line_start > 0 or start == 0:
            return start + line_start, tail[line_start:]
        size *= 4
    return 0, tail


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
