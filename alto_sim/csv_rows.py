"""CSV files, plain or gzipped, that are strict about their fields."""

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from alto_policy.frozen import quick
from alto_runs.errors import UserError

__all__ = ["Row", "open_text", "read_columns", "read_rows", "seconds_of"]

_ABSENT = frozenset(("", "None", "NULL", "null", "nan", "NaN", "NaT"))


@quick
@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; a value of the wrong kind is a UserError with file, line and field."""

    path: Path
    line: int
    places: Mapping[str, int]  # of the fields among the values
    values: Sequence[str]

    def text(self, field: str) -> str:
        value = self.values[self.places[field]]
        return "" if value in _ABSENT else value

    def number(self, field: str) -> float | None:
        """None where nothing stands."""
        text = self.values[self.places[field]]
        if text in _ABSENT:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(field, "a number")
        return value

    def whole(self, field: str) -> int | None:
        text = self.values[self.places[field]]
        if text.isdecimal():  # nearly always, and not asked as a number first
            return int(text)
        value = self.number(field)
        if value is None:
            return None
        if value != int(value) or value < 0:
            raise self.error(field, "a whole number of at least 0")
        return int(value)

    def time(self, field: str) -> float | None:
        """Seconds since 1970; None where nothing stands."""
        text = self.text(field)
        try:
            return seconds_of(text) if text else None
        except ValueError as error:
            raise self.error(field, "a time such as 2020-04-01 00:08:30") from error

    def error(self, field: str, expected: str) -> UserError:
        value = self.values[self.places[field]]
        return UserError(
            f"{self.path}: line {self.line}: field {field}: value {value!r}: expected {expected}"
        )


def seconds_of(text: str) -> float:
    """Seconds since 1970 of a date and time, of UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def open_text(path: Path) -> IO[str]:
    """Raises UserError if there is no such file."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"{path}: cannot read this trace: {error.strerror}") from error


def read_columns(path: Path) -> tuple[str, ...]:
    """The first line of a table."""
    with open_text(path) as file:
        return _header(path, _lines(path, file))


def read_rows(path: Path, columns: Sequence[str], *, has_header: bool = True) -> Iterator[Row]:
    """Rows that have at least these columns; without a header these columns alone, in order."""
    with open_text(path) as file:
        lines = _lines(path, file)
        names = _header(path, lines) if has_header else tuple(columns)
        if missing := [name for name in columns if name not in names]:
            raise UserError(f"{path}: line 1: no column {missing[0]!r}")
        places = {name: place for place, name in enumerate(names)}
        for line, values in lines:
            if len(values) != len(names):
                raise UserError(f"{path}: line {line}: {len(values)} values, expected {len(names)}")
            yield Row(path, line, places, values)


def _header(path: Path, lines: Iterator[tuple[int, list[str]]]) -> tuple[str, ...]:
    for _, names in lines:
        return tuple(name.strip().removeprefix("\ufeff") for name in names)
    raise UserError(f"{path}: the file is empty, expected a table")


def _lines(path: Path, file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank; raises UserError where the file is no table."""
    lines = csv.reader(file)
    try:
        for values in lines:
            if values:
                yield lines.line_num, values
    except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: line {lines.line_num + 1}: not a CSV file: {error}") from error
