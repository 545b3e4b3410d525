"""What all policies share: an executor for each task, kept packed while jobs wait."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import assert_never

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
    TimerFired,
)
from alto_policy.exits import is_non_finite
from alto_policy.memory import MemoryModel
from alto_policy.packing import by_batch_size, fits_alone, pack
from alto_policy.types import GpuId, Job, JobId, Task
from alto_policy.view import ClusterView, Status

__all__ = ["Dispatch", "Placement"]

Placement = Callable[[Sequence[Task], ClusterView], Sequence[Task]]


class Dispatch:
    """Trains every job to its end; a subclass says which jobs go early, and which may train.

    Waiting tasks get GPUs in the order of arrival, or in that of `place`; one that needs more GPUs
    than are free does not hold up those after it.
    """

    jobs_per_gpu: int | None = None  # no more than fit, by default
    keeps_order: bool = False  # launch in the order of `ready`, not by batch size

    def __init__(self, place: Placement | None = None) -> None:
        self._place = place

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        """What becomes of a job on its last report, which is finite and not at its end."""
        return ()

    def cut(self, task: Task, cluster: ClusterView, gone: Collection[JobId]) -> Iterable[Stop]:
        """Paused or queued jobs of the task to stop now; those in `gone` are stopped already."""
        return ()

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        """Groups of jobs that may be launched, the most urgent group first."""
        yield cluster.jobs(task.id, Status.PAUSED)
        yield cluster.jobs(task.id, Status.QUEUED)

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        match event:
            case LossReported():
                return self._on_report(event, cluster)
            case TaskArrived(task=task):
                return (*_too_wide(task, cluster), *self._start_executors(cluster))
            case ExecutorUp(task=task_id):
                task = cluster.tasks()[task_id]
                return self._attend(task, cluster, _too_large(task, cluster))
            case JobLeft(job=job, how=how):
                task = cluster.task_of(job)
                stops = _too_large(task, cluster) if how is Departure.EVICTED else ()
                return self._attend(task, cluster, stops, departed=cluster.spec(job))
            case ExecutorDown():
                return self._start_executors(cluster)
            case TimerFired():
                return ()
            case _:
                assert_never(event)

    def _on_report(self, report: LossReported, cluster: ClusterView) -> tuple[Decision, ...]:
        if report.step == cluster.spec(report.job).steps:
            return ()  # it is leaving by itself
        if is_non_finite(report):
            return (Stop(report.job, ExitReason.NON_FINITE),)
        return tuple(self.judge(report.job, cluster))

    def _attend(
        self,
        task: Task,
        cluster: ClusterView,
        stops: Sequence[Stop],
        departed: Job | None = None,
    ) -> tuple[Decision, ...]:
        """Stop what need not train, launch what fits, end the executor when all is done."""
        gone = {stop.job for stop in stops}
        stops = (*stops, *self.cut(task, cluster, gone))
        gone.update(stop.job for stop in stops)
        if len(cluster.jobs(task.id, Status.ENDED)) + len(gone) == len(task.jobs):
            return (*stops, StopExecutor(task.id))
        return (*stops, *self._launches(task, cluster, gone, departed))

    def _launches(
        self, task: Task, cluster: ClusterView, gone: Collection[JobId], departed: Job | None
    ) -> Sequence[Launch]:
        first = departed.hyperparameters.batch_size if departed else None
        ordered: list[Job] = []
        for group in self.ready(task, cluster):
            jobs = [cluster.spec(job) for job in group if job not in gone]
            ordered += jobs if self.keeps_order else by_batch_size(jobs, first)
        if not ordered:
            return ()
        gpus, memory = _executor(task, cluster)
        residents = {gpu: [cluster.spec(job) for job in cluster.residents(gpu)] for gpu in gpus}
        return pack(ordered, residents, memory, task, self.jobs_per_gpu)

    def _start_executors(self, cluster: ClusterView) -> tuple[StartExecutor, ...]:
        free = cluster.free_gpus()
        if not free:
            return ()
        tasks: Sequence[Task] = [cluster.tasks()[task] for task in cluster.waiting()]
        if self._place is not None:
            tasks = self._place(tasks, cluster)
        starts = []
        for task in tasks:
            if task.num_gpus <= len(free):
                starts.append(StartExecutor(task.id, free[: task.num_gpus]))
                free = free[task.num_gpus :]
        return tuple(starts)


def _too_wide(task: Task, cluster: ClusterView) -> Sequence[Stop]:
    """All jobs of a task that asks for more GPUs than there are."""
    if task.num_gpus <= len(cluster.gpus):
        return ()
    return [Stop(job.id, ExitReason.TOO_LARGE) for job in task.jobs]


def _too_large(task: Task, cluster: ClusterView) -> Sequence[Stop]:
    """The waiting jobs that would not fit on an empty GPU."""
    _, memory = _executor(task, cluster)
    waiting = (*cluster.jobs(task.id, Status.PAUSED), *cluster.jobs(task.id, Status.QUEUED))
    return [
        Stop(job, ExitReason.TOO_LARGE)
        for job in waiting
        if not fits_alone(cluster.spec(job), memory, task)
    ]


def _executor(task: Task, cluster: ClusterView) -> tuple[tuple[GpuId, ...], MemoryModel]:
    """GPUs and memory of the executor, which has told of itself or of a job of its own."""
    executor = cluster.executor(task.id)
    assert executor is not None
    assert executor.memory is not None
    return executor.gpus, executor.memory
