"""How long the samples of a run's data are: lines beside its log, from which a simulator knows what
each pass of its jobs trains on.

The policy never sees them, so a run replays without this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alto_policy.codec import codec_of
from alto_policy.types import TaskId
from alto_runs.files.lines import append_line, read_each

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
    """As `read_each`: a task's last line."""
    return {line.task: line.lengths for line in read_each(path, codec_of(_Line))}
