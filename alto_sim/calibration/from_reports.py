"""Learns how long passes and evaluations take from the times between reports, where executors told
nothing of their work."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alto_policy.decisions import Launch
from alto_policy.events import ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Job, JobId, Task
from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.least_squares import solved
from alto_sim.times.overheads import NO_OVERHEADS, size_class
from alto_sim.times.step_time import DEFAULT_STEP_TIME, StepTime, tokens_of

__all__ = ["fit"]

_AT_ONCE_SECONDS = 5e-3  # no pass of interest is as short
_MIN_STRETCHES = 10  # twice the unknowns


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
