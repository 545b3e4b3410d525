"""Learns from a run log how long passes and evaluations take."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from alto_policy.decisions import Launch
from alto_policy.events import ExecutorDown, JobLeft, LossReported, TaskArrived
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, Job, JobId, Task
from alto_sim.step_time import DEFAULT_STEP_TIME, StepTime, tokens_of

__all__ = ["fit"]

_MIN_STRETCHES = 6  # twice the unknowns


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
        self._tokens: dict[GpuId, int] = {}  # of all residents, in one pass
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
