"""How long the samples of a run's data are: lines beside its log, from which a simulator knows what
each pass of its jobs trains on.

The policy never sees them, so a run replays without this file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alto_policy.codec import MalformedError, codec_of
from alto_policy.types import TaskId
from alto_runs.errors import UserError
from alto_runs.lines import append_line, open_lines

__all__ = ["SampleLengths", "append_lengths", "read_lengths"]


@dataclass(frozen=True, slots=True, eq=False)
class SampleLengths:
    """Of each training sample, in the order of its file; a pair is one sample of two sequences."""

    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    longest: tuple[int, ...]  # of its sequences
    sequences: int = 1  # of each; the frozen model has to see pairs once

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.targets) == len(self.longest) > 0:
            raise ValueError("expected tokens, targets and longest of the same samples")


@dataclass(frozen=True, slots=True)
class _Line:
    task: TaskId
    lengths: SampleLengths


def append_lengths(path: Path, task: TaskId, lengths: SampleLengths) -> None:
    append_line(path, codec_of(_Line).dump(_Line(task, lengths)))


def read_lengths(path: Path) -> Mapping[TaskId, SampleLengths]:
    """What the file tells, a task's last line; nothing where there is none. Raises UserError.

    A line that a kill has torn is left out: each stands for itself.
    """
    found: dict[TaskId, SampleLengths] = {}
    if not path.is_file():
        return found
    with open_lines(path, errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            try:
                told = codec_of(_Line).decode(record)
            except (MalformedError, ValueError) as error:
                raise UserError(f"{path}: line {number}: {error}") from error
            found[told.task] = told.lengths
    return found
