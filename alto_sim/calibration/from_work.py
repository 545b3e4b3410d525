"""Learns from what executors told how long passes and evaluations take."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median

from alto_policy.types import TaskId
from alto_runs.files.executor_work import EvaluationWork, TrainingWork, Work
from alto_sim.calibration.between import Beside
from alto_sim.calibration.evaluations import Rounds, fit_rounds
from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.least_squares import weighed
from alto_sim.calibration.replayed_passes import (
    fit_replays,
    launched_sizes,
    recordings_of,
    seconds_of,
)
from alto_sim.times.overheads import NO_OVERHEADS, size_class
from alto_sim.times.step_time import Computed, StepTime

__all__ = ["fit_work", "trained_beside"]


def fit_work(
    *runs: Iterable[Work],
    longest: Mapping[TaskId, int] | None = None,
    means: Mapping[TaskId, float] | None = None,
    pairs: Collection[TaskId] = (),
    computed: Sequence[Sequence[Computed]] = (),
) -> Fitted | None:
    """What executors told of their work in runs of one machine: steady times of all but the first
    passes of each size, and what those took more; None if they trained nothing. `longest` are the
    longest sequences of tasks, `means` the mean tokens of one. Runs that train on `pairs` are set
    apart where there are others, and so are evaluations after passes too large to be recorded:
    memory was full, and they took three times as long. What the passes of runs `computed` may be
    known, by rows; of runs of which it is not, passes tell nothing then. Unless it is known of all
    but those with passes too large to be recorded, rows tell of passes what they can."""
    told = [tuple(run) for run in runs]
    known = list(computed) if computed else [()] * len(told)
    if not any(_training(told)):
        return None
    chosen = [i for i, run in enumerate(told) if not any(row.task in pairs for row in run)]
    chosen = chosen or [*range(len(told))]
    evaluation = fit_rounds([_rounds(told[i]) for i in chosen], means)
    chosen = [i for i in chosen if not _fills_memory(told[i])] or chosen
    if all(known[i] for i in chosen):
        told_passes = [(run, of_run) for run, of_run in zip(told, known, strict=True) if of_run]
        passes = _fit_passes(
            _training(run for run, _ in told_passes),
            longest or {},
            [of_run for _, of_run in told_passes],
        )
    else:
        passes = _fit_passes(_training(told[i] for i in chosen), longest or {})
    of_pairs = [row for run in told for row in run if row.task in pairs]
    return Fitted(
        replace(
            passes.step_time,
            per_evaluated_token=evaluation.per_token,
            per_evaluated_sequence=evaluation.per_sequence,
            per_forward_pass=evaluation.per_pass,
            per_round=evaluation.per_round,
        ),
        replace(
            passes.overheads,
            first_evaluation=evaluation.first,
            first_round=evaluation.first_round,
            first_report=evaluation.first_report,
            evaluation_of_pairs=_evaluation_of_pairs(of_pairs, evaluation, means or {}),
        ),
    )


def _training(runs: Iterable[Sequence[Work]]) -> list[list[TrainingWork]]:
    return [[row for row in run if isinstance(row, TrainingWork)] for run in runs]


def _rounds(run: Sequence[Work]) -> list[EvaluationWork]:
    """But for those after passes too large to be recorded."""
    (training,) = _training([run])
    launched = launched_sizes(training) if any(row.replayed for row in training) else set()
    found, is_after = [], False
    for row in run:
        if isinstance(row, TrainingWork):
            is_after = size_class(row.tokens / row.passes) in launched
        elif isinstance(row, EvaluationWork) and not is_after:
            found.append(row)
    return found


def _fills_memory(run: Sequence[Work]) -> bool:
    (training,) = _training([run])
    return any(row.replayed for row in training) and bool(launched_sizes(training))


def trained_beside(
    work: Sequence[Work],
    fitted: Fitted,
    longest: Mapping[TaskId, int],
    computed: Sequence[Computed] = (),
) -> list[Beside | None]:
    """What passes took longer than steady ones and their recordings do, of each row; None of other
    rows, and where nobody told what passes computed."""
    recording, rows = fitted.overheads.recording, fitted.step_time.rows
    is_known = rows is not None and (bool(computed) or not rows.is_detailed)
    of_rows = iter(computed)
    found: list[Beside | None] = []
    counts = iter(recordings_of([row for row in work if isinstance(row, TrainingWork)]))
    for row in work:
        if rows is None or not is_known or not isinstance(row, TrainingWork):
            found.append(None)
            continue
        known = next(of_rows) if rows.is_detailed else None
        steady, count = seconds_of(row, longest, fitted.step_time, known), next(counts)
        more = row.seconds - steady - recording * count
        found.append(Beside(more, None if count else steady / row.passes))
    return found


def _evaluation_of_pairs(
    rows: Iterable[Work], times: Rounds, means: Mapping[TaskId, float]
) -> float:
    """What it takes more, relative to one of as many tokens: each answer is a part of its own."""
    steady = [row for row in rows if isinstance(row, EvaluationWork) and not row.first_reports]
    return max(
        0.0, median([row.seconds / times.seconds(row, means) for row in steady] or [1.0]) - 1
    )


def _fit_passes(
    runs: Sequence[Sequence[TrainingWork]],
    longest: Mapping[TaskId, int],
    computed: Sequence[Sequence[Computed]] = (),
) -> Fitted:
    """What passes of a new size take more in all is what steady passes leave over, for as batches
    vary a size is new more than once."""
    if any(row.replayed_rows for run in runs for row in run):
        found = fit_replays(runs, longest, computed)
        overheads = replace(
            NO_OVERHEADS,
            recording=found.recording,
            compiling=found.compiling,
            launched_pass=found.launched_pass,
        )
        return Fitted(found.times, overheads)
    rows = [row for run in runs for row in run]
    sizes = [size_class(row.tokens / row.passes) for row in rows]
    steady = [row for i, row in enumerate(rows) if sizes[i] in sizes[:i]] or rows
    per_pass, per_token = weighed(
        [(row.passes, row.tokens) for row in steady], [row.seconds for row in steady]
    )
    more = math.fsum(row.seconds - per_pass * row.passes - per_token * row.tokens for row in rows)
    return Fitted(
        StepTime(per_pass=per_pass, per_token=per_token, per_evaluation=0.0),
        replace(NO_OVERHEADS, first_pass=max(0.0, more / len(set(sizes)))),
    )
