"""Files of lines that a run leaves: read plain or compressed by gzip, written plain alone.

A run that has ended may have its `run.jsonl` as `run.jsonl.gz`, and what stands beside it likewise.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

from alto_policy.codec import Codec
from alto_runs.errors import UserError

__all__ = ["append_line", "as_found", "check_plain", "compressed", "open_lines", "read_each"]

_Line = TypeVar("_Line")

_SUFFIX = ".gz"
_CHUNK = 1 << 20
_MAX_LINE = 1 << 28  # bytes; the lengths of a million samples take 15 million
_MAX_BYTES = 1 << 30  # the log of 82,247 simulated jobs takes 86 million


def as_found(path: Path) -> Path:
    """The file, or the compressed one that stands there in its place."""
    packed = path.with_name(path.name + _SUFFIX)
    is_packed = os.path.isfile(packed) and not os.path.isfile(path)  # takes names too long
    return packed if is_packed else path


def open_lines(path: Path, *, errors: str = "strict") -> IO[str]:
    """UTF-8 text. Raises UserError for a compressed file that is damaged, or larger than is read:
    before its first line, so that nobody takes the part before the damage for a whole run."""
    if path.suffix != _SUFFIX:
        return path.open(encoding="utf-8", errors=errors)
    _check(path)
    return gzip.open(path, "rt", encoding="utf-8", errors=errors)


def read_each(path: Path, codec: Codec[_Line]) -> Iterator[_Line]:
    """What the file's lines tell; nothing where there is none. Raises UserError.

    A line that a kill has torn is left out: each stands for itself.
    """
    if not path.is_file():
        return
    with open_lines(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            try:
                yield codec.decode(record)
            except ValueError as error:
                raise UserError(f"{path}: line {number}: {error}") from error


def append_line(path: Path, line: str) -> None:
    """In one write, so that several executors may share the file. Raises UserError."""
    check_plain(path)
    with path.open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def check_plain(path: Path) -> None:
    """Before a file is written on. Raises UserError."""
    if path.suffix == _SUFFIX:
        raise UserError(
            f"{path}: is compressed, and no run goes on in it; expected {path.stem}, as gunzip "
            "makes it"
        )


def compressed(data: bytes) -> bytes:
    """The same for the same data: without a time or a name."""
    return gzip.compress(data, mtime=0)


def _check(path: Path) -> None:
    size, line = 0, 0
    try:
        if not path.stat().st_size:
            raise EOFError("it is empty")
        with gzip.open(path) as file:
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                line = 0 if b"\n" in chunk else line + len(chunk)
                if size > _MAX_BYTES or line > _MAX_LINE:
                    raise UserError(
                        f"{path}: more than {_MAX_BYTES} bytes, or {_MAX_LINE} in a line; "
                        "expected it plain if it is that large"
                    )
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole gzip file: {error}") from error
