"""Run logs: a header, then one JSON line for each event with the decisions it led to."""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from alto_policy.codec import MalformedError, codec_of
from alto_policy.decisions import Decision
from alto_policy.events import Event
from alto_policy.frozen import quick
from alto_policy.policies import Settings
from alto_policy.types import Gpu

__all__ = [
    "CODEC_VERSION",
    "CorruptLogError",
    "Entry",
    "Header",
    "RunLog",
    "dump_entry",
    "dump_header",
    "load",
]

CODEC_VERSION = 1


class CorruptLogError(ValueError):
    """A line of a run log is not what was written; the message names the line and the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a run was made of: enough to decide everything again."""

    version: int = CODEC_VERSION
    policy: Settings
    gpus: tuple[Gpu, ...]
    made_by: tuple[tuple[str, str], ...] = ()  # facts by name: commit, versions, device, kernel

    def __post_init__(self) -> None:
        if self.version != CODEC_VERSION:
            raise ValueError(f"version must be {CODEC_VERSION}, got {self.version}")

    @property
    def facts(self) -> dict[str, str]:
        return dict(self.made_by)


@quick
@dataclass(frozen=True, slots=True)
class Entry:
    event: Event
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class RunLog:
    header: Header | None  # a trace may do without
    entries: tuple[Entry, ...]
    torn: str | None = None  # the last line, if it was cut short


@dataclass(frozen=True, slots=True)
class _HeaderLine:
    header: Header


def dump_header(header: Header) -> str:
    """One line, without its end."""
    return codec_of(_HeaderLine).dump(_HeaderLine(header))


dump_entry: Callable[[Entry], str] = codec_of(Entry).dump
"""One line, without its end."""


def load(lines: Iterable[str]) -> RunLog:
    """Read a log; a last line that was cut short is reported, any other fault is an error.

    Raises CorruptLogError.
    """
    header: Header | None = None
    entries: list[Entry] = []
    torn: tuple[str, str] | None = None  # the line, and what is wrong with it
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if torn is not None:
            raise CorruptLogError(torn[1])
        try:
            record = _parse(line)
            if number == 1 and isinstance(record, dict) and "header" in record:
                header = codec_of(_HeaderLine).decode(record).header
            else:
                entries.append(_entry(record))
        except json.JSONDecodeError as error:
            torn = line, f"line {number}: not JSON: {error}"
        except (ValueError, RecursionError) as error:
            raise CorruptLogError(f"line {number}: {error}") from error
    return RunLog(header, tuple(entries), torn[0] if torn else None)


def _entry(record: object) -> Entry:
    if isinstance(record, dict) and not record.keys() & {"event", "header"}:
        raise MalformedError("", "expected an entry of a run log or trace, with the field 'event'")
    entry: Entry = codec_of(Entry).decode(record)
    if not math.isfinite(entry.event.t):
        raise MalformedError("", f"t must be finite, got {entry.event.t}")
    return entry


def _parse(line: str) -> object:
    return json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)


def _refuse_constant(text: str) -> float:
    raise MalformedError("", f"{text} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedError("", f"the field {twice!r} stands twice")
    return record
