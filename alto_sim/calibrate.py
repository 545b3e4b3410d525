"""Learns from a run how long passes and evaluations take."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from alto_policy.decisions import Launch
from alto_policy.events import ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Job, JobId, Task, TaskId
from alto_runs.executor_work import EvaluationWork, TrainingWork, Work
from alto_sim.calibrate_between import Beside
from alto_sim.calibrate_replays import (
    fit_replays,
    launched_sizes,
    recordings_of,
    seconds_of,
)
from alto_sim.calibrate_rounds import Rounds, fit_rounds
from alto_sim.least_squares import solved, weighed
from alto_sim.overheads import NO_OVERHEADS, Overheads, size_class
from alto_sim.step_time import DEFAULT_STEP_TIME, Computed, StepTime, tokens_of

__all__ = ["Fitted", "fit", "fit_work", "trained_beside"]

_AT_ONCE_SECONDS = 5e-3  # no pass of interest is as short
_MIN_STRETCHES = 10  # twice the unknowns


@dataclass(frozen=True, slots=True)
class Fitted:
    step_time: StepTime
    overheads: Overheads


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
    per_pass, per_token, evaluation, first_pass, first_report = solved(work, seconds)
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
