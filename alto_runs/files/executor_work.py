"""What executors did and how long it took: lines beside the log, from which a simulator learns.

The policy never sees them, so a run replays without this file.
"""

from dataclasses import dataclass
from pathlib import Path

from alto_policy.codec import codec_of
from alto_policy.types import TaskId
from alto_runs.files.lines import append_line, read_each

__all__ = [
    "EvaluationWork",
    "LaunchWork",
    "TrainingWork",
    "Work",
    "append_work",
    "read_work",
    "work_line",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingWork:
    """Passes of the same jobs in a row; seconds and tokens are of all of them."""

    task: TaskId
    jobs: int
    ranks: int  # summed over the jobs
    passes: int
    tokens: int
    seconds: float
    replayed: int = 0  # passes of a size that was recorded before
    replayed_rows: int = 0  # that those computed: more than their tokens
    recorded: int | None = None  # passes; older executors launched a size first, and told neither
    travelled: int = 0  # passes in which tokens went to shards, and no weight came to the tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationWork:
    """Reports of jobs that were due together."""

    task: TaskId
    jobs: int
    first_reports: int  # of these jobs, to this executor
    tokens: int  # that all of them were evaluated on
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchWork:
    """Jobs that were given their places one after another; nobody trains meanwhile."""

    task: TaskId
    jobs: int
    seconds: float


Work = TrainingWork | EvaluationWork | LaunchWork


@dataclass(frozen=True, slots=True)
class _Line:
    work: Work


def append_work(path: Path, work: Work) -> None:
    append_line(path, work_line(work))


def work_line(work: Work) -> str:
    """Without its end."""
    return codec_of(_Line).dump(_Line(work))


def read_work(path: Path) -> tuple[Work, ...]:
    """As `read_each`."""
    return tuple(line.work for line in read_each(path, codec_of(_Line)))
