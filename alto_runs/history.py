"""What became of tasks, jobs and GPUs, folded from a run log."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from alto_policy.cluster import Cluster, IllegalDecisionError, ImpossibleEventError, Status
from alto_policy.decisions import Decision, ExitReason, Launch, StartExecutor
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
)
from alto_policy.runlog import Entry, RunLog
from alto_policy.types import GpuId, Job, JobId, Task, TaskId
from alto_runs.errors import UserError

__all__ = [
    "ExecutorSpan",
    "Follower",
    "JobHistory",
    "Outcome",
    "Residency",
    "RunHistory",
    "follow",
]


class Outcome(StrEnum):
    """How a job ended, or where it stands in a run that goes on."""

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    PAUSED = "paused"
    RUNNING = "running"
    QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class Residency:
    """A stay on a GPU, in seconds of the log; `how` is None if its executor went, or it goes on."""

    gpu: GpuId
    start: float
    end: float
    how: Departure | None


@dataclass(frozen=True, slots=True)
class ExecutorSpan:
    """A task's hold of its GPUs, from the moment at which its backbone was loaded."""

    task: TaskId
    gpus: tuple[GpuId, ...]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class JobHistory:
    """A job's reports, each of a later step than the one before, and its stays on GPUs."""

    task: TaskId
    spec: Job
    outcome: Outcome
    reason: ExitReason | None
    reports: tuple[LossReported, ...]
    residencies: tuple[Residency, ...]

    @property
    def steps(self) -> int:
        """Steps that the log proves."""
        if self.outcome is Outcome.FINISHED:
            return self.spec.steps
        return self.reports[-1].step if self.reports else 0

    @property
    def samples(self) -> int:
        return self.spec.samples(self.steps)


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Tasks in the order of arrival, jobs in the order of their tasks."""

    tasks: tuple[Task, ...]
    arrivals: Mapping[TaskId, float]
    jobs: Mapping[JobId, JobHistory]
    executors: tuple[ExecutorSpan, ...]
    spans: Mapping[TaskId, tuple[ExecutorSpan, ...]]  # the same by task
    end: float

    def of_task(self, task: Task) -> tuple[JobHistory, ...]:
        return tuple(self.jobs[job.id] for job in task.jobs)


def follow(log: RunLog) -> RunHistory:
    """Raises UserError where the log tells what cannot have happened."""
    cluster = Cluster(log.header.gpus if log.header else ())
    follower = Follower(cluster)
    for number, entry in enumerate(log.entries, start=1):
        try:
            cluster.apply(entry.event)
            for decision in entry.decisions:
                cluster.commit(decision)
            follower.observe(entry)
        except (ImpossibleEventError, IllegalDecisionError) as error:
            raise UserError(f"run log: entry {number}: {error}") from error
    return follower.history()


class Follower:
    """Keeps the times of a run as its entries come, beside the ledger that they are applied to."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._observer = _Observer()
        self._end = 0.0

    def observe(self, entry: Entry) -> None:
        """An entry that the ledger knows of."""
        self._end = entry.event.t
        self._observer.hear(entry.event)
        for decision in entry.decisions:
            self._observer.note(self._end, decision)

    def history(self) -> RunHistory:
        """Of all entries; there may be no others after it."""
        self._observer.close(self._end)
        return _history(self._cluster, self._observer, self._end)


def _history(cluster: Cluster, observer: "_Observer", end: float) -> RunHistory:
    tasks = tuple(cluster.tasks().values())
    jobs = {
        job.id: JobHistory(
            task=task.id,
            spec=job,
            outcome=_outcome(cluster.status(job.id), observer.departures.get(job.id)),
            reason=cluster.reason(job.id),
            reports=tuple(cluster.history(job.id)),
            residencies=tuple(observer.residencies.get(job.id, ())),
        )
        for task in tasks
        for job in task.jobs
    }
    executors = tuple(observer.executors)
    spans: dict[TaskId, list[ExecutorSpan]] = {task.id: [] for task in tasks}
    for span in executors:
        spans[span.task].append(span)
    by_task = {task: tuple(held) for task, held in spans.items()}
    return RunHistory(tasks, observer.arrivals, jobs, executors, by_task, end)


def _outcome(status: Status, departure: Departure | None) -> Outcome:
    match status:
        case Status.QUEUED:
            return Outcome.QUEUED
        case Status.PAUSED:
            return Outcome.PAUSED
        case Status.RUNNING | Status.PAUSING | Status.STOPPING:
            return Outcome.RUNNING
        case Status.ENDED if departure is Departure.FINISHED:
            return Outcome.FINISHED
        case Status.ENDED if departure is Departure.FAILED:
            return Outcome.FAILED
        case Status.ENDED:
            return Outcome.STOPPED


class _Observer:
    """Keeps the times, which the ledger does not."""

    def __init__(self) -> None:
        self.arrivals: dict[TaskId, float] = {}
        self.departures: dict[JobId, Departure] = {}  # the last of each job
        self.residencies: dict[JobId, list[Residency]] = {}
        self.executors: list[ExecutorSpan] = []
        self._places: dict[TaskId, tuple[GpuId, ...]] = {}
        self._up_since: dict[TaskId, float] = {}
        self._on: dict[GpuId, dict[JobId, float]] = {}  # who is there, and since when
        self._gpu_of: dict[JobId, GpuId] = {}

    def note(self, t: float, decision: Decision) -> None:
        match decision:
            case StartExecutor(task=task, gpus=gpus):
                self._places[task] = gpus
            case Launch(gpu=gpu, jobs=jobs):
                self._on.setdefault(gpu, {}).update(dict.fromkeys(jobs, t))
                self._gpu_of.update(dict.fromkeys(jobs, gpu))

    def hear(self, event: Event) -> None:
        match event:
            case TaskArrived(t=t, task=task):
                self.arrivals[task.id] = t
            case ExecutorUp(t=t, task=task_id):
                self._up_since.setdefault(task_id, t)
            case JobLeft(t=t, job=job, how=how):
                self.departures[job] = how
                self._leave(job, t, how)
            case ExecutorDown(t=t, task=task_id):
                self._go_down(task_id, t)

    def close(self, end: float) -> None:
        """The log ends here; what is open lasts at least until now."""
        for task in tuple(self._places):
            self._go_down(task, end)

    def _go_down(self, task: TaskId, t: float) -> None:
        gpus = self._places.pop(task)
        for gpu in gpus:
            for job in tuple(self._on.get(gpu, ())):
                self._leave(job, t, None)
        if (start := self._up_since.pop(task, None)) is not None:
            self.executors.append(ExecutorSpan(task, gpus, start, t))

    def _leave(self, job: JobId, t: float, how: Departure | None) -> None:
        gpu = self._gpu_of.pop(job)
        start = self._on[gpu].pop(job)
        self.residencies.setdefault(job, []).append(Residency(gpu, start, t, how))
