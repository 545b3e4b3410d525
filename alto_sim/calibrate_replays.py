"""Learns from what executors told how long passes take that are recorded and replayed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from alto_policy.types import TaskId
from alto_runs.executor_work import TrainingWork
from alto_sim.least_squares import LEAST_SECONDS, weighed
from alto_sim.overheads import size_class
from alto_sim.step_time import RowTimes, StepTime

__all__ = ["Replays", "fit_replays", "launched_sizes", "recordings_of", "seconds_of"]

_ONCE = 2  # passes until one is replayed
_FILLING = [1 << power for power in range(9, 15)]  # rows, of which one bends the times best


@dataclass(frozen=True, slots=True)
class Replays:
    times: StepTime
    recording: float  # seconds of each
    compiling: float  # of all that are recorded first


def fit_replays(runs: Sequence[Sequence[TrainingWork]], longest: Mapping[TaskId, int]) -> Replays:
    """A replay takes as long as what was recorded. Most recordings take about as long; what the
    first of a run take more is the compilation of kernels, which most runs find on the disk."""
    rows = [row for run in runs for row in run]
    counts = [recordings_of(run) for run in runs]
    recorded = [count for of_run in counts for count in of_run]
    steady = [row for row, count in zip(rows, recorded, strict=True) if not count] or rows
    times = min(
        (_with_bend(steady, longest, filling) for filling in _FILLING),
        key=lambda times: math.fsum(_missed(row, longest, times) for row in steady),
    )
    more = [
        [
            (row.seconds - seconds_of(row, longest, times), count)
            for row, count in zip(run, of_run, strict=True)
            if count
        ]
        for run, of_run in zip(runs, counts, strict=True)
    ]
    each = [seconds / count for of_run in more for seconds, count in of_run]
    recording = max(0.0, median(each or [0.0]))
    first = [of_run[0] for of_run in more if of_run]
    compiling = median_low([seconds - recording * count for seconds, count in first] or [0.0])
    return Replays(times, recording, max(0.0, compiling))


def recordings_of(rows: Sequence[TrainingWork]) -> list[float]:
    """In each of the rows of a run. Of a new size the first pass is launched as ever, and the
    second one recorded; sizes that are never recorded are launched always."""
    launched = launched_sizes(rows)
    return [0 if _size(row) in launched else (row.passes - row.replayed) / 2 for row in rows]


def launched_sizes(rows: Sequence[TrainingWork]) -> set[int]:
    """Classes of passes that came again and were never replayed."""
    passes: Counter[int] = Counter()
    for row in rows:
        passes[_size(row)] += row.passes
    replayed = {_size(row) for row in rows if row.replayed}
    return {size for size, count in passes.items() if count > _ONCE} - replayed


def _size(row: TrainingWork) -> int:
    return size_class(row.tokens / row.passes)


def _with_bend(
    rows: Sequence[TrainingWork], longest: Mapping[TaskId, int], filling: int
) -> StepTime:
    """Where so many rows fill the GPU. Data sets of one length tell nothing of lengths."""
    is_told = len({longest.get(row.task, 0) for row in rows}) > 1
    per_pass, per_row, per_row_beyond, per_token, per_rank, per_length = weighed(
        [
            (
                row.passes,
                row.passes * _computed(row),
                row.passes * max(0.0, _computed(row) - filling),
                row.tokens,
                row.passes * row.ranks,
                row.passes * longest.get(row.task, 0) * is_told,
            )
            for row in rows
        ],
        [row.seconds for row in rows],
    )
    return StepTime(
        per_pass=per_pass,
        per_token=per_token,
        per_evaluation=0.0,
        per_rank=per_rank,
        per_length=per_length,
        rows=RowTimes(per_row=per_row, per_row_beyond=per_row_beyond, filling=filling),
    )


def seconds_of(row: TrainingWork, longest: Mapping[TaskId, int], times: StepTime) -> float:
    """Seconds of the passes by these times."""
    assert times.rows is not None
    of_rows = times.rows.seconds(_computed(row))
    of_passes = times.per_pass + of_rows + times.per_rank * row.ranks
    of_passes += times.per_length * longest.get(row.task, 0)
    return row.passes * of_passes + times.per_token * row.tokens


def _missed(row: TrainingWork, longest: Mapping[TaskId, int], times: StepTime) -> float:
    return (row.seconds - seconds_of(row, longest, times)) ** 2 / max(row.seconds, LEAST_SECONDS)


def _computed(row: TrainingWork) -> float:
    """Rows of a pass: those that are launched compute their own tokens."""
    launched = row.tokens * (1 - row.replayed / row.passes)
    return (row.replayed_rows + launched) / row.passes
