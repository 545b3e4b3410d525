"""Trains for real, behind the protocol that the simulator answers to as well."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch

from alto_exec.executor import Executor, Report
from alto_policy.decisions import (
    Decision,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
    WakeAt,
)
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
    TimerFired,
)
from alto_policy.memory import MemoryModel
from alto_policy.runlog import Entry
from alto_policy.types import JobId, Task, TaskId
from alto_runs.directory import RunDirectory

__all__ = ["ExecBackend", "Past"]

StartedExecutor = tuple[Executor, MemoryModel]


@dataclass(frozen=True, slots=True)
class Past:
    """What a log says of the time before this process."""

    end: float = 0.0
    arrived: frozenset[TaskId] = frozenset()
    executors: tuple[TaskId, ...] = ()  # started and not known to be down
    reported: tuple[tuple[JobId, int], ...] = ()  # last step that each job has reported
    timers: tuple[float, ...] = ()  # asked for and not yet fired

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Past":
        end, arrived, reported = 0.0, set[TaskId](), dict[JobId, int]()
        executors: dict[TaskId, None] = {}
        timers: list[float] = []
        for entry in entries:
            end = entry.event.t
            match entry.event:
                case TaskArrived(task=task):
                    arrived.add(task.id)
                case LossReported(job=job, step=step):
                    reported[job] = step
                case ExecutorDown(task=task_id):
                    executors.pop(task_id, None)
                case TimerFired():
                    timers.remove(min(timers))
            for decision in entry.decisions:
                match decision:
                    case StartExecutor(task=task_id):
                        executors[task_id] = None
                    case WakeAt(t=t):
                        timers.append(t)
        known = tuple(reported.items())
        return cls(end, frozenset(arrived), tuple(executors), known, tuple(timers))


class ExecBackend:
    """One device, one process: executors train in turn, and everything happens in `next_event`.

    A killed process is an executor that went down: what a resumed run lost is told to the policy
    first, and the policy brings it back by the same moves as after any failure.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        start: Callable[[Task], StartedExecutor],
        directory: RunDirectory,
        past: Past,
    ) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._jobs = {job.id: job for task in tasks for job in task.jobs}
        self._task_of = {job.id: task.id for task in tasks for job in task.jobs}
        self._start = start
        self._directory = directory
        self._reported = dict(past.reported)
        self._executors: dict[TaskId, Executor] = {}
        self._ended: list[JobId] = []  # their departure is on its way to the log
        self._timers = list(past.timers)
        self._tokens_of_stopped = 0  # trained by executors that are no more
        self._zero = time.monotonic() - past.end
        self._outbox: deque[Event] = deque()
        for lost in past.executors:
            self._outbox.append(ExecutorDown(self._now(), lost))
        for task in tasks:
            if task.id not in past.arrived:
                self._outbox.append(TaskArrived(self._now(), task))

    @property
    def tokens_trained(self) -> int:
        return self._tokens_of_stopped + sum(e.tokens_trained for e in self._executors.values())

    def next_event(self) -> Event | None:
        while not self._outbox:
            for job in self._ended:
                self._forget(job)
            self._ended.clear()
            self._resume_reported()
            self._fire_timers()
            if self._outbox:
                break
            busy = [e for e in self._executors.values() if e.residents]
            for executor in busy:
                self._advance(executor)
            if not busy and not self._timers:
                return None
            if not busy:
                time.sleep(max(0.0, min(self._timers) - self._now()))
        return self._outbox.popleft()

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task_id):
                executor, memory = self._start(self._tasks[task_id])
                self._executors[task_id] = executor
                self._outbox.append(ExecutorUp(self._now(), task_id, memory))
            case StopExecutor(task=task_id):
                self._tokens_of_stopped += self._executors.pop(task_id).tokens_trained
                self._outbox.append(ExecutorDown(self._now(), task_id))
            case Launch(task=task_id, jobs=jobs):
                for job in jobs:
                    if report := self._executors[task_id].launch(self._jobs[job]):
                        self._tell(report)
            case Pause(job=job):
                self._executor_of(job).leave(job, keep=True)
                self._outbox.append(JobLeft(self._now(), job, Departure.PAUSED))
            case Stop(job=job):
                self._stop(job)
            case WakeAt(t=t):
                self._timers.append(t)
            case _:
                assert_never(decision)

    def _advance(self, executor: Executor) -> None:
        """One pass; if memory runs out all the same, one job leaves, and the policy learns."""
        try:
            reports = executor.advance()
        except torch.OutOfMemoryError:
            self._outbox.append(JobLeft(self._now(), executor.evict(), Departure.EVICTED))
            return
        for report in reports:
            self._tell(report)

    def _stop(self, job: JobId) -> None:
        executor = self._executors.get(self._task_of[job])
        if executor is not None and job in executor.residents:
            executor.leave(job, keep=False)
            self._outbox.append(JobLeft(self._now(), job, Departure.STOPPED))
        self._forget(job)

    def _forget(self, job: JobId) -> None:
        """Remove what was kept of a job that will not train again."""
        self._directory.checkpoint_path(job).unlink(missing_ok=True)

    def _executor_of(self, job: JobId) -> Executor:
        return self._executors[self._task_of[job]]

    def _tell(self, report: Report) -> None:
        """Send the report unless the log has it: a resumed job comes by its last one again."""
        if report.step <= self._reported.get(report.job, 0):
            return
        self._reported[report.job] = report.step
        losses = report.losses
        self._outbox.append(
            LossReported(self._now(), report.job, report.step, losses.train, losses.val)
        )

    def _resume_reported(self) -> None:
        """Decisions on all reports have come: train on, but for jobs that are at their end.

        What was kept of those is removed only when their departure is in the log.
        """
        for executor in self._executors.values():
            for job, how in executor.resume_all():
                executor.leave(job, keep=True)
                self._ended.append(job)
                self._outbox.append(JobLeft(self._now(), job, how))

    def _fire_timers(self) -> None:
        for t in sorted(t for t in self._timers if t <= self._now()):
            self._timers.remove(t)
            self._outbox.append(TimerFired(self._now()))

    def _now(self) -> float:
        return time.monotonic() - self._zero
