"""Trains for real, behind the protocol that the simulator answers to as well."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, assert_never

import torch

from alto_exec.events.inbox import Inbox
from alto_exec.events.outbox import Outbox
from alto_exec.events.past import Past
from alto_exec.executor import Executor, Report
from alto_exec.jobs.keeping import Keeper
from alto_policy.decisions import (
    Decision,
    Launch,
    Pause,
    Resize,
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
    TaskCancelled,
    TaskResized,
)
from alto_policy.memory import MemoryModel
from alto_policy.types import GpuId, Job, JobId, Task, TaskId
from alto_runs.files.directory import RunDirectory

__all__ = ["ExecBackend", "JobHost", "StartedExecutor"]

StartedExecutor = tuple[Executor, MemoryModel]


class JobHost(Protocol):
    """An `Executor`, or several that are led as one; a job is launched on one of their GPUs.

    One without a keeper is durable: whoever has left it is on disk.
    """

    @property
    def residents(self) -> Sequence[JobId]: ...
    @property
    def tokens_trained(self) -> int: ...
    @property
    def keeper(self) -> Keeper | None: ...
    def expect(self, jobs: Sequence[Job]) -> None: ...
    def launch(self, job: Job, place: int = 0) -> Report | None: ...
    def leave(self, job: JobId, *, keep: bool) -> None: ...
    def reach(self, targets: Sequence[tuple[Job, int]]) -> None: ...
    def secure(self, jobs: Sequence[Job]) -> None: ...
    def resume_all(self) -> list[tuple[JobId, Departure]]: ...
    def advance(self) -> list[Report]: ...
    def evict(self) -> JobId: ...
    def forget(self, job: JobId) -> None: ...


_IDLE_SECONDS = 0.02  # between two looks into the inbox where nothing trains


class ExecBackend:
    """Executors train in turn in this process, and everything happens in `next_event`.

    Tasks come by the inbox, which is asked for those that the past does not know. `directory_of`
    tells where a job's files are. An executor that cannot be started costs the task: `start` gives
    None, and the task is as good as cancelled.

    A killed process is an executor that went down: what a resumed run lost is told to the policy
    first, and the policy brings it back by the same moves as after any failure.
    """

    def __init__(
        self,
        inbox: Inbox,
        start: Callable[[Task], tuple[JobHost, MemoryModel] | None],
        directory_of: Callable[[TaskId], RunDirectory],
        past: Past,
    ) -> None:
        self._outbox = Outbox(inbox, past)
        self._now = self._outbox.now
        self._tasks: dict[TaskId, Task] = {}
        self._jobs: dict[JobId, Job] = {}
        self._task_of: dict[JobId, TaskId] = {}
        for task in past.tasks:
            self._know(task)
        self._start = start
        self._directory_of = directory_of
        self._reported = dict(past.reported)
        self._behind = dict(past.reported)  # until the job is known to be there again
        self._executors: dict[TaskId, JobHost] = {}
        self._gpus: dict[TaskId, tuple[GpuId, ...]] = {}  # by the executor's places
        self._ended: list[JobId] = []  # their departure is on its way to the log
        self._tokens_of_stopped = 0  # trained by executors that are no more
        self._outbox.tell_all(past.going(self._now()))
        for lost in past.executors:
            self._outbox.tell(ExecutorDown(self._now(), lost))
        self._outbox.tell_all(past.move.coming(self._now()))

    @property
    def tokens_trained(self) -> int:
        return self._tokens_of_stopped + sum(e.tokens_trained for e in self._executors.values())

    def next_event(self) -> Event | None:
        while not self._outbox:
            for job in self._ended:
                self._forget(job)
            self._ended.clear()
            self._resume_reported()
            self._outbox.look()
            if self._outbox:
                break
            busy = [e for e in self._executors.values() if e.residents]
            for executor in busy:
                self._advance(executor)
            if not busy:
                seconds = self._outbox.seconds_to_look(_IDLE_SECONDS)
                if seconds is None:
                    return None
                time.sleep(seconds)
        event = self._outbox.next()
        if isinstance(event, TaskArrived):
            self._know(event.task)
        # Who comes back trains again after a kill what is not on disk; nobody waits for it.
        if isinstance(event, JobLeft) and not event.how.comes_back:
            host = self._executors.get(self._task_of[event.job])
            if host and host.keeper:
                host.keeper.secure([self._jobs[event.job]])
        return event

    def prepare(self, decisions: Sequence[Decision]) -> None:
        """What must be on disk before the log tells of these decisions: a job that is to stop does
        not come back after a kill, so its best adapter must be there. One that has not yet come
        back from the last kill to where the log has it does so first."""
        stopping = [decision.job for decision in decisions if isinstance(decision, Stop)]
        hosts = [(job, self._executors.get(self._task_of[job])) for job in stopping]
        for job, host in hosts:
            if host and job in self._behind:
                for evicted in _reach(host, self._jobs[job], self._behind.pop(job)):
                    self._outbox.tell(JobLeft(self._now(), evicted, Departure.EVICTED))
        for host in {id(host): host for _, host in hosts if host}.values():
            host.secure([self._jobs[job] for job, its in hosts if its is host])

    def execute(self, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task_id, gpus=gpus):
                self._gpus[task_id] = gpus
                self._start_executor(self._tasks[task_id].on(len(gpus)))
            case StopExecutor(task=task_id):
                self._tokens_of_stopped += _closed(self._executors.pop(task_id, None))
                self._outbox.tell(ExecutorDown(self._now(), task_id))
            case Launch(task=task_id, gpu=gpu, jobs=jobs):
                host, place = self._executors[task_id], self._gpus[task_id].index(gpu)
                for report in _launched(host, [self._jobs[job] for job in jobs], place):
                    self._tell(report)
            case Pause(job=job):
                executor = self._executors[self._task_of[job]]
                if job in executor.residents:  # it may have been evicted just before
                    executor.leave(job, keep=True)
                    self._outbox.tell(JobLeft(self._now(), job, Departure.PAUSED))
            case Stop(job=job):
                self._stop(job)
            case Resize(task=task_id, num_gpus=num_gpus):
                self._outbox.tell(TaskResized(self._now(), task_id, num_gpus))
            case WakeAt(t=t):
                self._outbox.wake_at(t)
            case _:
                assert_never(decision)

    def _know(self, task: Task) -> None:
        self._tasks[task.id] = task
        self._jobs.update((job.id, job) for job in task.jobs)
        self._task_of.update((job.id, task.id) for job in task.jobs)

    def _start_executor(self, task: Task) -> None:
        started = self._start(task)
        if started is None:
            self._outbox.tell(TaskCancelled(self._now(), task.id))
            return
        executor, memory = started
        self._executors[task.id] = executor
        self._outbox.tell(ExecutorUp(self._now(), task.id, memory))

    def _advance(self, executor: JobHost) -> None:
        """One pass; if memory runs out all the same, one job leaves, and the policy learns."""
        try:
            reports = executor.advance()
        except torch.OutOfMemoryError:
            self._outbox.tell(JobLeft(self._now(), executor.evict(), Departure.EVICTED))
            return
        for report in reports:
            self._tell(report)

    def _stop(self, job: JobId) -> None:
        executor = self._executors.get(self._task_of[job])
        if executor and job in executor.residents:
            executor.leave(job, keep=False)
            self._outbox.tell(JobLeft(self._now(), job, Departure.STOPPED))
        self._forget(job)

    def _forget(self, job: JobId) -> None:
        """Remove what was kept of a job that will not train again."""
        if executor := self._executors.get(self._task_of[job]):
            executor.forget(job)
        self._directory_of(self._task_of[job]).drop_checkpoint(job)

    def _tell(self, report: Report) -> None:
        """Send the report unless the log has it: a resumed job comes by its last one again."""
        if report.step >= self._behind.get(report.job, 0):
            self._behind.pop(report.job, None)
        if report.step <= self._reported.get(report.job, 0):
            return
        self._reported[report.job] = report.step
        losses = report.losses
        self._outbox.tell(
            LossReported(self._now(), report.job, report.step, losses.train, losses.val)
        )

    def _resume_reported(self) -> None:
        """Decisions on all reports have come: train on, but for jobs that are at their end.

        What was kept of those is removed only when their departure is in the log.
        """
        for executor in self._executors.values():
            for job, how in executor.resume_all():
                executor.leave(job, keep=False)
                self._ended.append(job)
                self._outbox.tell(JobLeft(self._now(), job, how))


def _launched(host: JobHost, jobs: Sequence[Job], place: int) -> Iterator[Report]:
    """What those tell again that have come back to where they were."""
    host.expect(jobs)
    for job in jobs:
        if report := host.launch(job, place):
            yield report


def _reach(host: JobHost, job: Job, step: int) -> Sequence[JobId]:
    """Have the job come to where the log has it; those that made room, if it had none."""
    evicted = []
    while True:
        try:
            host.reach([(job, step)])
        except torch.OutOfMemoryError:
            if not host.residents:
                raise
            evicted.append(host.evict())
        else:
            return evicted


def _closed(host: JobHost | None) -> int:
    """Tokens that it has trained, once all of it is on disk."""
    if host is None:
        return 0
    if host.keeper:
        host.keeper.close()
    return host.tokens_trained
