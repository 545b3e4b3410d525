"""Learns from what executors told how long passes take that are recorded and replayed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low

from alto_policy.types import TaskId
from alto_runs.files.executor_work import TrainingWork
from alto_sim.calibration.least_squares import LEAST_SECONDS, typical, weighed
from alto_sim.times.overheads import size_class
from alto_sim.times.step_time import Computed, RowTimes, StepTime

__all__ = ["Replays", "fit_replays", "launched_sizes", "recordings_of", "seconds_of"]

_ONCE = 2  # passes until one is replayed
_FILLING = [1 << power for power in range(9, 15)]  # rows, of which one bends the times best


@dataclass(frozen=True, slots=True)
class Replays:
    times: StepTime
    recording: float  # seconds of each
    compiling: float  # of all that are recorded first
    launched_pass: float  # at least, of each that is too large to be recorded: the host's time


def fit_replays(
    runs: Sequence[Sequence[TrainingWork]],
    longest: Mapping[TaskId, int],
    told: Sequence[Sequence[Computed]] = (),
) -> Replays:
    """A replay takes as long as what was recorded. Most recordings take about as long; what the
    first of a run take more is the compilation of kernels, which most runs find on the disk. What
    each row of all runs computed may be `told`."""
    known: Sequence[Sequence[Computed | None]] = told or [[None] * len(run) for run in runs]
    counts = [recordings_of(run) for run in runs]
    rows = [
        list(zip(run, of_run, computed, strict=True))
        for run, of_run, computed in zip(runs, counts, known, strict=True)
    ]
    everything = [(row, computed) for of_run in rows for row, _, computed in of_run]
    launched = [launched_sizes(run) if told else () for run in runs]
    steady = [
        (row, computed)
        for of_run, sizes in zip(rows, launched, strict=True)
        for row, n, computed in of_run
        if not n and _size(row) not in sizes
    ]
    steady = steady or everything
    work = _work(steady, longest)
    times = min(
        (_with_bend(steady, work, filling) for filling in _FILLING),
        key=lambda times: math.fsum(_missed(*row, longest, times) for row in steady),
    )
    more = [
        [
            (row.seconds - seconds_of(row, longest, times, computed), count)
            for row, count, computed in of_run
            if count
        ]
        for of_run in rows
    ]
    each = [seconds / count for of_run in more for seconds, count in of_run]
    recording = typical(each)
    first = [of_run[0] for of_run in more if of_run]
    compiling = median_low([seconds - recording * count for seconds, count in first] or [0.0])
    of_launched = [
        (row.seconds, seconds_of(row, longest, times, computed), row.passes)
        for of_run, sizes in zip(rows, launched, strict=True)
        for row, _, computed in of_run
        if _size(row) in sizes
    ]
    return Replays(times, recording, max(0.0, compiling), _of_the_host(of_launched))


def _of_the_host(launched: Sequence[tuple[float, float, int]]) -> float:
    """Seconds that each pass takes at least, of rows with their seconds, those by their work, and
    their passes: by least absolute errors."""
    each = [seconds / passes for seconds, _, passes in launched]

    def missed(least: float) -> float:
        return math.fsum(
            abs(seconds - max(least * passes, by_work)) for seconds, by_work, passes in launched
        )

    return min(sorted({0.0, *each}), key=missed)


def recordings_of(rows: Sequence[TrainingWork]) -> list[float]:
    """In each of the rows of a run. Older executors did not tell: of a new size the first pass was
    launched, and the second one recorded; sizes that were never recorded were launched always."""
    launched = launched_sizes(rows)

    def supposed(row: TrainingWork) -> float:
        return 0 if _size(row) in launched else (row.passes - row.replayed) / 2

    return [supposed(row) if row.recorded is None else row.recorded for row in rows]


def launched_sizes(rows: Sequence[TrainingWork]) -> set[int]:
    """Classes of passes that came again and were never replayed."""
    passes: Counter[int] = Counter()
    for row in rows:
        passes[_size(row)] += row.passes
    replayed = {_size(row) for row in rows if row.replayed}
    return {size for size, count in passes.items() if count > _ONCE} - replayed


def _size(row: TrainingWork) -> int:
    return size_class(row.tokens / row.passes)


def _work(
    rows: Sequence[tuple[TrainingWork, Computed | None]], longest: Mapping[TaskId, int]
) -> list[tuple[float, ...]]:
    """Of each row. Data sets of one length tell nothing of lengths, rows of as many passes each
    nothing of what begins with a row."""
    is_told = len({longest.get(row.task, 0) for row, _ in rows}) > 1
    is_counted = len({row.passes for row, _ in rows}) > 1
    work: list[tuple[float, ...]] = []
    for row, known in rows:
        computed = known or _plain(row)
        length = row.passes * longest.get(row.task, 0) if is_told and known is None else 0.0
        work.append(
            (
                row.passes,
                math.fsum(passes * each for each, passes in computed.rows.items()),
                row.tokens,
                row.passes * row.ranks,
                length,
                computed.places,
                computed.longest,
                computed.sequences,
                computed.walked,
                is_counted,
            )
        )
    return work


def _with_bend(
    rows: Sequence[tuple[TrainingWork, Computed | None]],
    work: Sequence[tuple[float, ...]],
    filling: int,
) -> StepTime:
    """Where so many rows fill the GPU."""
    beyond = [
        math.fsum(n * max(0.0, each - filling) for each, n in (known or _plain(row)).rows.items())
        for row, known in rows
    ]
    work = [(*of_row[:2], more, *of_row[2:]) for of_row, more in zip(work, beyond, strict=True)]
    found = weighed(work, [row.seconds for row, _ in rows])
    per_pass, per_row, per_row_beyond, per_token, per_rank, per_length, *others = found
    per_place, per_longest, per_sequence, per_walked, per_stretch = others
    return StepTime(
        per_pass=per_pass,
        per_token=per_token,
        per_evaluation=0.0,
        per_rank=per_rank,
        per_length=per_length,
        rows=RowTimes(
            per_row=per_row,
            per_row_beyond=per_row_beyond,
            filling=filling,
            per_place=per_place,
            per_longest=per_longest,
            per_sequence=per_sequence,
            per_walked=per_walked,
            per_stretch=per_stretch,
        ),
    )


def seconds_of(
    row: TrainingWork,
    longest: Mapping[TaskId, int],
    times: StepTime,
    computed: Computed | None = None,
) -> float:
    """Seconds of the passes by these times."""
    assert times.rows is not None
    of_passes = times.per_pass + times.per_rank * row.ranks
    of_passes += times.per_length * longest.get(row.task, 0)
    of_rows = times.rows.of(computed or _plain(row))
    of_rows += times.rows.per_stretch
    return row.passes * of_passes + of_rows + times.per_token * row.tokens


def _missed(
    row: TrainingWork, computed: Computed | None, longest: Mapping[TaskId, int], times: StepTime
) -> float:
    missed = row.seconds - seconds_of(row, longest, times, computed)
    return missed**2 / max(row.seconds, LEAST_SECONDS)


def _plain(row: TrainingWork) -> Computed:
    """By rows alone: passes that are launched compute their own tokens."""
    launched = row.tokens * (1 - row.replayed / row.passes)
    return Computed(rows={(row.replayed_rows + launched) / row.passes: row.passes})
