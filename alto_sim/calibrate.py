"""Learns from a run how long passes and evaluations take."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low

import numpy as np

from alto_policy.decisions import Launch
from alto_policy.events import ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Job, JobId, Task
from alto_runs.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_runs.history import RunHistory
from alto_sim.overheads import NO_OVERHEADS, Overheads, size_class
from alto_sim.step_time import DEFAULT_STEP_TIME, RowTimes, StepTime, tokens_of

__all__ = ["Fitted", "fit", "fit_work", "seconds_to_leave", "seconds_to_start"]

_LEAST_SECONDS = 1e-6
_AT_ONCE_SECONDS = 5e-3  # no pass of interest is as short
_MIN_STRETCHES = 10  # twice the unknowns
_FILLING = [1 << power for power in range(9, 15)]  # rows, of which one bends the times best


@dataclass(frozen=True, slots=True)
class Fitted:
    step_time: StepTime
    overheads: Overheads


def fit_work(*runs: Iterable[Work]) -> Fitted | None:
    """What executors told of their work in runs of one machine: steady times of all but the first
    passes of each size, and what those took more; None if they trained nothing."""
    rows = [tuple(run) for run in runs]
    training = [[row for row in run if isinstance(row, TrainingWork)] for run in rows]
    rounds = [[row for row in run if isinstance(row, EvaluationWork)] for run in rows]
    if not any(training):
        return None
    passes = _fit_passes(training)
    evaluation = _fit_rounds(rounds)
    return Fitted(
        replace(
            passes.step_time,
            per_evaluated_token=evaluation.per_token,
            per_round=evaluation.per_round,
        ),
        replace(
            passes.overheads,
            first_evaluation=evaluation.first,
            first_round=evaluation.first_round,
            first_report=evaluation.first_report,
        ),
    )


def seconds_to_start(*runs: tuple[RunHistory, Iterable[Work]]) -> float:
    """What a job's first place takes. One that comes back from a pause finds its own, at once."""
    took = math.fsum(row.seconds for _, work in runs for row in work if isinstance(row, LaunchWork))
    started = sum(bool(job.residencies) for history, _ in runs for job in history.jobs.values())
    return took / max(1, started)


def seconds_to_leave(*runs: tuple[RunHistory, Iterable[Work]]) -> float:
    """What a job's leaving takes: all that executors did not tell of while there were any. Mostly
    a best adapter is on its way to the disk then."""
    untold, departures = 0.0, 0
    for history, work in runs:
        there, until = 0.0, 0.0
        for span in sorted(history.executors, key=lambda span: span.start):
            there += max(0.0, span.end - max(span.start, until))
            until = max(until, span.end)
        untold += max(0.0, there - math.fsum(row.seconds for row in work))
        departures += sum(len(job.residencies) for job in history.jobs.values())
    return untold / max(1, departures)


def _fit_passes(runs: Sequence[Sequence[TrainingWork]]) -> Fitted:
    """What passes of a new size take more in all is what steady passes leave over, for as batches
    vary a size is new more than once."""
    if any(row.replayed_rows for run in runs for row in run):
        return _fit_replays(runs)
    rows = [row for run in runs for row in run]
    sizes = [size_class(row.tokens / row.passes) for row in rows]
    steady = [row for i, row in enumerate(rows) if sizes[i] in sizes[:i]] or rows
    per_pass, per_token = _weighed(
        [(row.passes, row.tokens) for row in steady], [row.seconds for row in steady]
    )
    more = math.fsum(row.seconds - per_pass * row.passes - per_token * row.tokens for row in rows)
    return Fitted(
        StepTime(per_pass=per_pass, per_token=per_token, per_evaluation=0.0),
        replace(NO_OVERHEADS, first_pass=max(0.0, more / len(set(sizes)))),
    )


def _fit_replays(runs: Sequence[Sequence[TrainingWork]]) -> Fitted:
    """A replay takes as long as what was recorded. Most recordings take about as long; what all of
    a run take more is the compilation of kernels, which most runs find on the disk."""
    rows = [row for run in runs for row in run]
    steady = [row for row in rows if not _recordings(row)] or rows
    times = min(
        (_with_bend(steady, filling) for filling in _FILLING),
        key=lambda times: math.fsum(_missed(row, times) for row in steady),
    )
    more = [
        [(row.seconds - _of(row, times), count) for row in run if (count := _recordings(row))]
        for run in runs
    ]
    each = [seconds / count for of_run in more for seconds, count in of_run]
    recording = max(0.0, median(each or [0.0]))
    compiling = median_low(
        math.fsum(seconds - recording * count for seconds, count in of_run) for of_run in more
    )
    overheads = replace(NO_OVERHEADS, recording=recording, compiling=max(0.0, compiling))
    return Fitted(times, overheads)


def _recordings(row: TrainingWork) -> float:
    """Of a new size the first pass is launched as ever, and the second one recorded; sizes that
    are never recorded are launched always."""
    launched = row.passes - row.replayed
    return 0 if launched == row.passes > 2 else launched / 2


def _with_bend(rows: Sequence[TrainingWork], filling: int) -> StepTime:
    """Where so many rows fill the GPU."""
    per_pass, per_row, per_row_beyond, per_rank = _weighed(
        [
            (
                row.passes,
                row.passes * _computed(row),
                row.passes * max(0.0, _computed(row) - filling),
                row.passes * row.ranks,
            )
            for row in rows
        ],
        [row.seconds for row in rows],
    )
    return StepTime(
        per_pass=per_pass,
        per_token=0.0,
        per_evaluation=0.0,
        per_rank=per_rank,
        rows=RowTimes(per_row=per_row, per_row_beyond=per_row_beyond, filling=filling),
    )


def _of(row: TrainingWork, times: StepTime) -> float:
    """Seconds of the passes by these times."""
    assert times.rows is not None
    of_rows = times.rows.seconds(_computed(row))
    return row.passes * (times.per_pass + of_rows + times.per_rank * row.ranks)


def _missed(row: TrainingWork, times: StepTime) -> float:
    return (row.seconds - _of(row, times)) ** 2 / max(row.seconds, _LEAST_SECONDS)


def _computed(row: TrainingWork) -> float:
    """Rows of a pass: those that are launched compute their own tokens."""
    launched = row.tokens * (1 - row.replayed / row.passes)
    return (row.replayed_rows + launched) / row.passes


@dataclass(frozen=True, slots=True)
class _Rounds:
    """Seconds of evaluations that are made together."""

    per_round: float
    per_token: float
    first: float  # more, of all
    first_round: float  # more, of so many jobs for the first time
    first_report: float  # more, of a job


def _fit_rounds(runs: Sequence[Sequence[EvaluationWork]]) -> _Rounds:
    """Steady rounds are those of as many jobs as before, none of them for the first time; the
    others tell what they took more."""
    rows = [row for run in runs for row in run]
    if not rows:
        return _Rounds(0.0, 0.0, 0.0, 0.0, 0.0)
    firsts = [first for run in runs for first in _firsts(run)]
    steady = [row for row, first in zip(rows, firsts, strict=True) if not any(first)] or rows
    per_round, per_token = _weighed(
        [(1, row.tokens) for row in steady], [row.seconds for row in steady]
    )
    more = [row.seconds - per_round - per_token * row.tokens for row in rows]
    is_first = [first[0] for first in firsts]
    _, first_round, first_report = _solve(np.array(firsts, dtype=float), np.array(more))
    return _Rounds(
        per_round,
        per_token,
        first=max(
            0.0,
            median_low(
                seconds - first_report * row.first_reports
                for row, seconds, first in zip(rows, more, is_first, strict=True)
                if first
            ),
        ),
        first_round=first_round,
        first_report=first_report,
    )


def _firsts(rows: Sequence[EvaluationWork]) -> list[tuple[float, ...]]:
    """Of each: whether it is the first, whether others are the first of so many jobs, and how many
    jobs report for the first time."""
    known: set[int] = set()
    firsts: list[tuple[float, ...]] = []
    for row in rows:
        is_new = row.jobs not in known
        firsts.append((is_new and not known, is_new and bool(known), row.first_reports))
        known.add(row.jobs)
    return firsts


def _weighed(work: Sequence[tuple[float, ...]], seconds: Sequence[float]) -> list[float]:
    """Least squares of errors that grow with the root of the time."""
    roots = np.sqrt(np.maximum(seconds, _LEAST_SECONDS))
    return _solve(np.array(work, dtype=float) / roots[:, None], np.array(seconds) / roots)


def fit(entries: Iterable[Entry], default: StepTime = DEFAULT_STEP_TIME) -> Fitted:
    """Least squares over the stretches between a job's reports; the default if they are too few.

    No coefficient is negative: the most negative one is left out and the rest are fitted again.
    """
    observer = _Observer()
    told = tuple(entries)
    firsts = _first_reports(told)
    for index, entry in enumerate(told):
        observer.observe(entry, firsts.get(index, 0))
    if len(observer.stretches) < _MIN_STRETCHES:
        return Fitted(default, NO_OVERHEADS)
    work = np.array([s.work for s in observer.stretches], dtype=float)
    seconds = np.array([s.seconds for s in observer.stretches])
    per_pass, per_token, evaluation, first_pass, first_report = _solve(work, seconds)
    if per_pass + per_token == 0:
        return Fitted(default, NO_OVERHEADS)
    times = StepTime(
        per_pass=per_pass,
        per_token=per_token,
        per_evaluation=0.0 if observer.knows_tokens else evaluation,
        per_evaluated_token=evaluation if observer.knows_tokens else 0.0,
    )
    overheads = replace(NO_OVERHEADS, first_pass=first_pass, first_report=first_report)
    return Fitted(times, overheads)


def _first_reports(entries: Sequence[Entry]) -> dict[int, int]:
    """How many jobs report for the first time with those that report as good as at once, by the
    place of the first of them in the log."""
    counts: dict[int, int] = {}
    known: set[JobId] = set()
    place, last = 0, -math.inf
    for index, entry in enumerate(entries):
        if isinstance(report := entry.event, LossReported):
            if report.t - last > _AT_ONCE_SECONDS:
                place = index
            last = report.t
            if report.job not in known:
                known.add(report.job)
                counts[place] = counts.get(place, 0) + 1
    return counts


def _solve(work: np.ndarray, seconds: np.ndarray) -> list[float]:
    scale = np.maximum(np.abs(work).max(axis=0), 1.0)  # tokens outnumber passes by thousands
    columns = list(range(work.shape[1]))
    solution = np.zeros(work.shape[1])
    while columns:
        found = np.linalg.lstsq(work[:, columns] / scale[columns], seconds, rcond=None)[0]
        if found.min() >= 0:
            solution[columns] = found / scale[columns]
            break
        columns.pop(int(found.argmin()))
    return [float(value) for value in solution]


@dataclass(frozen=True, slots=True)
class _Stretch:
    """What the GPU of a job did from one of the job's reports to the next."""

    passes: int
    tokens: float
    evaluated: float  # jobs, or tokens where a validation set's are known
    first_passes: int  # their classes that were new
    first_reports: int
    seconds: float

    @property
    def work(self) -> tuple[float, ...]:
        return (
            self.passes,
            self.tokens,
            self.evaluated,
            self.first_passes,
            self.first_reports,
        )


@dataclass(slots=True)
class _OpenStretch:
    begin: float
    step: int
    token_seconds: float = 0.0
    evaluated: float = 0.0
    first_passes: int = 0
    first_reports: int = 0


class _Observer:
    def __init__(self) -> None:
        self.stretches: list[_Stretch] = []
        self.knows_tokens = True  # of all tasks
        self._jobs: dict[JobId, tuple[Job, Task]] = {}
        self._gpu_of: dict[JobId, GpuId] = {}
        self._tokens: dict[GpuId, float] = {}  # of all residents, in one pass
        self._open: dict[JobId, _OpenStretch] = {}
        self._steps: dict[JobId, int] = {}  # at the last report
        self._passes: dict[GpuId, set[int]] = {}  # their classes that are known
        self._now = 0.0

    def observe(self, entry: Entry, first_reports: int) -> None:
        """So many of the reports that are made with this one are their jobs' first ones."""
        self._pass_time(entry.event.t)
        match entry.event:
            case TaskArrived(task=task):
                self._jobs.update((job.id, (job, task)) for job in task.jobs)
                self.knows_tokens &= task.tokens is not None
            case LossReported() if entry.event.job in self._gpu_of:
                self._report(entry.event, first_reports)
            case JobLeft(job=job) if job in self._gpu_of:
                self._leave(job)
            case ExecutorDown(task=task_id):
                for job in [job for job in self._gpu_of if self._jobs[job][1].id == task_id]:
                    self._passes.pop(self._gpu_of[job], None)
                    self._leave(job)
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                for job in decision.jobs:
                    self._gpu_of[job] = decision.gpu
                    self._add_tokens(job, 1)
                    self._open[job] = _OpenStretch(entry.event.t, self._steps.get(job, 0))

    def _pass_time(self, now: float) -> None:
        if now > self._now:
            for gpu in {gpu for gpu, tokens in self._tokens.items() if tokens > 0}:
                size, known = size_class(self._tokens[gpu]), self._passes.setdefault(gpu, set())
                if size not in known:
                    known.add(size)
                    for job, stretch in self._open.items():
                        stretch.first_passes += self._gpu_of[job] == gpu
        for job, stretch in self._open.items():
            stretch.token_seconds += (now - self._now) * self._tokens[self._gpu_of[job]]
        self._now = now

    def _report(self, report: LossReported, first_reports: int) -> None:
        gpu, counts = self._gpu_of[report.job], self._jobs[report.job][1].tokens
        evaluated = counts.validation if counts is not None and self.knows_tokens else 1
        for job, stretch in self._open.items():
            if self._gpu_of[job] == gpu:
                stretch.evaluated += evaluated
                stretch.first_reports += first_reports
        done = self._open.get(report.job)
        if done is not None and report.t > done.begin and report.step > done.step:
            accumulation = self._jobs[report.job][0].hyperparameters.accumulation
            passes = (report.step - done.step) * accumulation
            seconds = report.t - done.begin
            tokens = passes * done.token_seconds / seconds
            self.stretches.append(
                _Stretch(
                    passes,
                    tokens,
                    done.evaluated,
                    done.first_passes,
                    done.first_reports,
                    seconds,
                )
            )
        self._steps[report.job] = report.step
        self._open[report.job] = _OpenStretch(report.t, report.step)

    def _leave(self, job: JobId) -> None:
        self._add_tokens(job, -1)
        del self._gpu_of[job]
        self._open.pop(job, None)

    def _add_tokens(self, job: JobId, sign: int) -> None:
        gpu, (spec, task) = self._gpu_of[job], self._jobs[job]
        self._tokens[gpu] = self._tokens.get(gpu, 0) + sign * tokens_of((spec,), task)
