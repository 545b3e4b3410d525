"""Learns from a run how long passes and evaluations take."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from alto_policy.decisions import Launch
from alto_policy.events import ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Job, JobId, Task
from alto_runs.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_sim.overheads import Overheads, size_class
from alto_sim.step_time import DEFAULT_STEP_TIME, StepTime, tokens_of

__all__ = ["Fitted", "fit", "fit_work"]

_LEAST_SECONDS = 1e-6
_MIN_STRETCHES = 6  # twice the unknowns


@dataclass(frozen=True, slots=True)
class Fitted:
    step_time: StepTime
    overheads: Overheads


def fit_work(work: Iterable[Work]) -> Fitted | None:
    """What executors told of their work: steady times of all but the first work of each size, and
    what those first ones took more; None if they trained nothing."""
    rows = tuple(work)
    training = [_Timed(r.tokens, r.passes, r.seconds) for r in rows if isinstance(r, TrainingWork)]
    rounds = [_Timed(r.tokens, 1, r.seconds) for r in rows if isinstance(r, EvaluationWork)]
    launches = [row for row in rows if isinstance(row, LaunchWork)]
    if not training:
        return None
    passes, evaluations = _fit_timed(training), _fit_timed(rounds)
    launched = sum(row.jobs for row in launches)
    return Fitted(
        StepTime(
            per_pass=passes.per_time,
            per_token=passes.per_token,
            per_evaluation=0.0,
            per_evaluated_token=evaluations.per_token,
            per_round=evaluations.per_time,
        ),
        Overheads(
            launch=sum(row.seconds for row in launches) / max(1, launched),
            first_pass=passes.first,
            first_evaluation=evaluations.first,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    tokens: int
    times: int  # that it was done
    seconds: float


@dataclass(frozen=True, slots=True)
class _Linear:
    per_time: float
    per_token: float
    first: float  # of a size, in the mean

    def seconds(self, row: _Timed) -> float:
        return self.per_time * row.times + self.per_token * row.tokens


def _fit_timed(rows: Sequence[_Timed]) -> _Linear:
    """Least squares of errors that grow with the root of the time."""
    if not rows:
        return _Linear(0.0, 0.0, 0.0)
    known: set[int] = set()
    firsts: list[_Timed] = []
    for row in rows:
        size = size_class(row.tokens / row.times)
        if size not in known:
            known.add(size)
            firsts.append(row)
    steady = [row for row in rows if not any(row is first for first in firsts)] or rows
    roots = [math.sqrt(max(row.seconds, _LEAST_SECONDS)) for row in steady]
    work = np.array([(r.times / w, r.tokens / w) for r, w in zip(steady, roots, strict=True)])
    seconds = np.array([row.seconds / w for row, w in zip(steady, roots, strict=True)])
    per_time, per_token = _solve(work, seconds)
    found = _Linear(per_time, per_token, 0.0)
    more = fmean(row.seconds - found.seconds(row) for row in firsts)
    return replace(found, first=max(0.0, more))


def fit(entries: Iterable[Entry], default: StepTime = DEFAULT_STEP_TIME) -> StepTime:
    """Least squares over the stretches between a job's reports; the default if they are too few.

    No coefficient is negative: the most negative one is left out and the rest are fitted again.
    """
    observer = _Observer()
    for entry in entries:
        observer.observe(entry)
    if len(observer.stretches) < _MIN_STRETCHES:
        return default
    work = np.array([(s.passes, s.tokens, s.evaluations) for s in observer.stretches], dtype=float)
    seconds = np.array([s.seconds for s in observer.stretches])
    per_pass, per_token, per_evaluation = _solve(work, seconds)
    if per_pass + per_token == 0:
        return default
    return StepTime(per_pass=per_pass, per_token=per_token, per_evaluation=per_evaluation)


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
    evaluations: int
    seconds: float


@dataclass(slots=True)
class _OpenStretch:
    begin: float
    step: int
    token_seconds: float = 0.0
    evaluations: int = 0


class _Observer:
    def __init__(self) -> None:
        self.stretches: list[_Stretch] = []
        self._jobs: dict[JobId, tuple[Job, Task]] = {}
        self._gpu_of: dict[JobId, GpuId] = {}
        self._tokens: dict[GpuId, float] = {}  # of all residents, in one pass
        self._open: dict[JobId, _OpenStretch] = {}
        self._now = 0.0

    def observe(self, entry: Entry) -> None:
        self._pass_time(entry.event.t)
        match entry.event:
            case TaskArrived(task=task):
                self._jobs.update((job.id, (job, task)) for job in task.jobs)
            case LossReported() if entry.event.job in self._gpu_of:
                self._report(entry.event)
            case JobLeft(job=job) if job in self._gpu_of:
                self._leave(job)
            case ExecutorDown(task=task_id):
                for job in [job for job in self._gpu_of if self._jobs[job][1].id == task_id]:
                    self._leave(job)
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                for job in decision.jobs:
                    self._gpu_of[job] = decision.gpu
                    self._add_tokens(job, 1)

    def _pass_time(self, now: float) -> None:
        for job, stretch in self._open.items():
            stretch.token_seconds += (now - self._now) * self._tokens[self._gpu_of[job]]
        self._now = now

    def _report(self, report: LossReported) -> None:
        gpu = self._gpu_of[report.job]
        for job, stretch in self._open.items():
            stretch.evaluations += self._gpu_of[job] == gpu
        done = self._open.get(report.job)
        if done is not None and report.t > done.begin and report.step > done.step:
            accumulation = self._jobs[report.job][0].hyperparameters.accumulation
            passes = (report.step - done.step) * accumulation
            seconds = report.t - done.begin
            tokens = passes * done.token_seconds / seconds
            self.stretches.append(_Stretch(passes, tokens, done.evaluations, seconds))
        self._open[report.job] = _OpenStretch(report.t, report.step)

    def _leave(self, job: JobId) -> None:
        self._add_tokens(job, -1)
        del self._gpu_of[job]
        self._open.pop(job, None)

    def _add_tokens(self, job: JobId, sign: int) -> None:
        gpu = self._gpu_of[job]
        self._tokens[gpu] = self._tokens.get(gpu, 0) + sign * tokens_of(*self._jobs[job])
