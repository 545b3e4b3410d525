"""What became of tasks, jobs and GPUs, folded from a run log."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from alto_policy.decisions import ExitReason, Launch, StartExecutor
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    NodeDown,
    NodeUp,
    TaskArrived,
)
from alto_policy.frozen import quick
from alto_policy.ledger.cluster import Cluster, IllegalDecisionError, ImpossibleEventError, Status
from alto_policy.runlog import Entry, RunLog
from alto_policy.types import Gpu, GpuId, Job, JobId, Task, TaskId
from alto_runs.errors import UserError

__all__ = [
    "ExecutorSpan",
    "Follower",
    "JobHistory",
    "Outage",
    "Outcome",
    "Residency",
    "RunHistory",
    "follow",
]


class Outcome(StrEnum):
    """How a job ended, or where it stands in a run that goes on."""

    __hash__ = str.__hash__  # Enum's own is slow

    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    PAUSED = "paused"
    RUNNING = "running"
    QUEUED = "queued"


# Looked up once: a member asked of its enum takes 0.09 us in Python 3.11, a global 0.005.
_FINISHED, _STOPPED, _ENDED = Outcome.FINISHED, Outcome.STOPPED, Status.ENDED


@quick
@dataclass(frozen=True, slots=True)
class Residency:
    """A stay on a GPU, in seconds of the log; `how` is None if its executor went, or it goes on."""

    gpu: GpuId
    start: float
    end: float
    how: Departure | None


@quick
@dataclass(frozen=True, slots=True)
class ExecutorSpan:
    """A task's hold of its GPUs, from the moment at which its backbone was loaded."""

    task: TaskId
    gpus: tuple[GpuId, ...]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Outage:
    """A node was down, or still is at the end of the log."""

    node: str
    gpus: tuple[GpuId, ...]
    start: float
    end: float


@quick
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
        if self.outcome is _FINISHED:
            return self.spec.steps
        return self.reports[-1].step if self.reports else 0

    @property
    def samples(self) -> int:
        return self.spec.samples(self.steps)


_OPEN = {
    Status.QUEUED: Outcome.QUEUED,
    Status.PAUSED: Outcome.PAUSED,
    Status.RUNNING: Outcome.RUNNING,
    Status.PAUSING: Outcome.RUNNING,
    Status.STOPPING: Outcome.RUNNING,
}
_ENDS: Mapping[Departure | None, Outcome] = {
    Departure.FINISHED: Outcome.FINISHED,
    Departure.FAILED: Outcome.FAILED,
}


@dataclass(frozen=True, slots=True)
class RunHistory:
    """Tasks in the order of arrival, jobs in the order of their tasks."""

    tasks: tuple[Task, ...]
    arrivals: Mapping[TaskId, float]
    jobs: Mapping[JobId, JobHistory]
    executors: tuple[ExecutorSpan, ...]
    spans: Mapping[TaskId, tuple[ExecutorSpan, ...]]  # the same by task, of those that had any
    end: float
    outages: tuple[Outage, ...] = ()  # in the order of their ends

    def of_task(self, task: Task) -> tuple[JobHistory, ...]:
        return tuple([self.jobs[job.id] for job in task.jobs])

    def by_task(self) -> Iterator[tuple[Task, tuple[JobHistory, ...]]]:
        """Each task with its jobs, in one go: a look for each of 100,000 jobs misses the cache."""
        jobs = iter(self.jobs.values())
        for task in self.tasks:
            yield task, tuple(islice(jobs, len(task.jobs)))


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
    """Keeps the times of a run, which the ledger does not, as its entries come."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._end = 0.0
        self._arrivals: dict[TaskId, float] = {}
        self._residencies: dict[JobId, tuple[Residency, ...]] = {}
        self._spans: dict[TaskId, tuple[ExecutorSpan, ...]] = {}
        self._executors: list[ExecutorSpan] = []
        self._open: dict[TaskId, _OpenExecutor] = {}
        self._inside: dict[JobId, tuple[GpuId, float]] = {}  # where, since when
        self._outages = _Outages(cluster.gpus)

    def observe(self, entry: Entry) -> None:
        """An entry that the ledger knows of."""
        event = entry.event
        self._end = t = event.t
        # A chain of isinstance: patterns of classes take four times as long, on every event.
        if isinstance(event, JobLeft):
            gpu, start = self._inside.pop(event.job)
            self._add_stay(event.job, Residency(gpu, start, t, event.how))
        elif isinstance(event, TaskArrived):
            self._arrivals[event.task.id] = t
        elif isinstance(event, ExecutorUp):
            executor = self._open[event.task]
            if executor.up_since is None:
                executor.up_since = t
        elif isinstance(event, ExecutorDown):
            self._close(event.task, t)
        else:
            self._outages.observe(event)
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                stay = decision.gpu, t
                self._open[decision.task].launched += decision.jobs
                for job in decision.jobs:
                    self._inside[job] = stay
            elif isinstance(decision, StartExecutor):
                self._open[decision.task] = _OpenExecutor(decision.gpus, None, [])

    def history(self) -> RunHistory:
        """Of all entries; there may be no others after it."""
        for task in tuple(self._open):
            self._close(task, self._end)  # it lasts at least until now
        tasks = tuple(self._cluster.tasks().values())
        jobs = {job.id: self._job(job, task.id) for task in tasks for job in task.jobs}
        executors = tuple(self._executors)
        outages = self._outages.told(self._end)
        return RunHistory(tasks, self._arrivals, jobs, executors, self._spans, self._end, outages)

    def _close(self, task: TaskId, t: float) -> None:
        executor = self._open.pop(task)
        for job in executor.launched:
            if (stay := self._inside.pop(job, None)) is not None:
                self._add_stay(job, Residency(*stay, t, None))
        if executor.up_since is not None:
            span = ExecutorSpan(task, executor.gpus, executor.up_since, t)
            self._executors.append(span)
            earlier = self._spans.get(task)
            self._spans[task] = (span,) if earlier is None else (*earlier, span)

    def _add_stay(self, job: JobId, stay: Residency) -> None:
        earlier = self._residencies.get(job)
        self._residencies[job] = (stay,) if earlier is None else (*earlier, stay)

    def _job(self, job: Job, task: TaskId) -> JobHistory:
        cluster, stays = self._cluster, self._residencies.get(job.id, ())
        return JobHistory(
            task,
            job,
            _outcome(cluster.status(job.id), stays[-1].how if stays else None),
            cluster.reason(job.id),
            tuple(cluster.history(job.id)),
            stays,
        )


class _Outages:
    def __init__(self, gpus: Iterable[Gpu]) -> None:
        self._gpus = tuple(gpus)
        self._since: dict[str, float] = {}  # of nodes that are down
        self._over: list[Outage] = []

    def observe(self, event: Event) -> None:
        if isinstance(event, NodeDown):
            self._since[event.node] = event.t
        elif isinstance(event, NodeUp):
            if event.node in self._since:
                self._over.append(self._outage(event.node, event.t))
            if event.gpus:
                others = (gpu for gpu in self._gpus if gpu.node != event.node)
                self._gpus = (*others, *event.gpus)

    def told(self, end: float) -> tuple[Outage, ...]:
        return (*self._over, *(self._outage(node, end) for node in tuple(self._since)))

    def _outage(self, node: str, end: float) -> Outage:
        gpus = tuple(gpu.id for gpu in self._gpus if gpu.node == node)
        return Outage(node, gpus, self._since.pop(node), end)


@dataclass(slots=True)
class _OpenExecutor:
    gpus: tuple[GpuId, ...]
    up_since: float | None
    launched: list[JobId]  # on it, some more than once


def _outcome(status: Status, departure: Departure | None) -> Outcome:
    if status is not _ENDED:
        return _OPEN[status]
    return _ENDS.get(departure, _STOPPED)
