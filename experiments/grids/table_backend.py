"""Plays a policy over a full grid, in an order of arrival that is chosen; nothing takes time.

The clock counts training samples. The job that is least far along reports next: with room for all
jobs they go in lock-step, with room for one they come one after another.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from alto_policy.controller import Controller, run
from alto_policy.decisions import (
    Decision,
    ExitReason,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.policies import Settings, build
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, Job, JobId
from alto_policy.view import Policy
from experiments.grids.columns import column_of
from experiments.grids.curve_sets import CurveSet

__all__ = ["Arrival", "Play", "TableBackend", "play_policy"]


class Arrival(StrEnum):
    LOCKSTEP = "lock-step"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, slots=True)
class Play:
    """The reports that a rule let happen, in their order: rows and columns of the curve set."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    reasons: Mapping[int, ExitReason] = field(default_factory=dict)  # of the rows that were stopped


class TableBackend:
    def __init__(self, curves: CurveSet, order: Sequence[int], max_jobs: int) -> None:
        """The jobs arrive in `order`, rows of the curve set."""
        jobs = tuple(curves.task.jobs[row] for row in order)
        task = replace(curves.task, jobs=jobs, num_gpus=1)
        self._curves = curves
        self._rows: dict[JobId, int] = {curves.task.jobs[row].id: row for row in order}
        self._specs: dict[JobId, Job] = {job.id: job for job in jobs}
        self._reported = dict.fromkeys(self._specs, 0)
        self._running: dict[JobId, None] = {}
        self._samples = 0.0
        self._memory = MemoryModel(
            capacity=1, fixed=0, per_rank=0, per_token=0, per_rank_token=0, max_jobs=max_jobs
        )
        self._outbox: deque[Event] = deque([TaskArrived(0.0, task)])
        self._told: JobId | None = None  # has reported, and goes on if nothing is decided

    def next_event(self) -> Event | None:
        told, self._told = self._told, None
        if told is not None and told in self._running and self._is_done(told):
            self._leave(told, Departure.FINISHED)
        if self._outbox:
            return self._outbox.popleft()
        if not self._running:
            return None
        job = min(self._running, key=self._share_of)
        return self._report(job)

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task):
                self._outbox.append(ExecutorUp(self._samples, task, self._memory))
            case Launch(jobs=jobs):
                self._running.update(dict.fromkeys(jobs))
            case Pause(job=job) if job in self._running:
                self._leave(job, Departure.PAUSED)
            case Stop(job=job) if job in self._running:
                self._leave(job, Departure.STOPPED)
            case StopExecutor(task=task):
                self._outbox.append(ExecutorDown(self._samples, task))

    def _report(self, job: JobId) -> LossReported:
        spec, number = self._specs[job], self._reported[job] + 1
        before = spec.report_step(number - 1) if number > 1 else 0
        step = spec.report_step(number)
        self._samples += spec.samples(step - before)
        self._reported[job] = number
        self._told = job
        row, column = self._rows[job], column_of(spec, number, self._curves.num_reports)
        train, val = self._curves.train[row, column], self._curves.val[row, column]
        return LossReported(self._samples, job, step, float(train), float(val))

    def _share_of(self, job: JobId) -> float:
        return self._reported[job] / self._specs[job].reports

    def _is_done(self, job: JobId) -> bool:
        return self._reported[job] == self._specs[job].reports

    def _leave(self, job: JobId, how: Departure) -> None:
        del self._running[job]
        self._outbox.append(JobLeft(self._samples, job, how))


def play_policy(
    curves: CurveSet,
    policy: Settings | Policy,
    arrival: Arrival = Arrival.LOCKSTEP,
    order: Sequence[int] | None = None,
) -> Play:
    """The jobs in the order of the task, unless another one is given."""
    given = range(len(curves.task.jobs)) if order is None else order
    row_of = {job.id: row for row, job in enumerate(curves.task.jobs)}
    seen: dict[int, int] = dict.fromkeys(given, 0)
    rows: list[int] = []
    columns: list[int] = []
    reasons: dict[int, ExitReason] = {}

    def record(entry: Entry) -> None:
        if isinstance(entry.event, LossReported):
            row = row_of[entry.event.job]
            seen[row] += 1
            rows.append(row)
            columns.append(column_of(curves.task.jobs[row], seen[row], curves.num_reports))
        for decision in entry.decisions:
            if isinstance(decision, Stop):
                reasons[row_of[decision.job]] = decision.reason

    backend = TableBackend(curves, given, len(given) if arrival is Arrival.LOCKSTEP else 1)
    decides = build(policy) if isinstance(policy, Settings) else policy
    run(Controller(decides, Cluster((Gpu(id=GpuId(0), kind="table"),)), record), backend)
    return Play(tuple(rows), tuple(columns), reasons)
