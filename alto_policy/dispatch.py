"""What all policies share: an executor for each task, kept packed while jobs wait."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import assert_never

from alto_policy.decisions import (
    Decision,
    ExitReason,
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
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskCancelled,
    TaskResized,
    TimerFired,
)
from alto_policy.executors.packing import by_batch_size, fits_alone, pack
from alto_policy.executors.rebalancing import Going, moves
from alto_policy.exits import is_non_finite
from alto_policy.gangs import Gangs
from alto_policy.ledger.transitions import IllegalDecisionError
from alto_policy.memory import MemoryModel
from alto_policy.queue import TaskQueue
from alto_policy.types import GpuId, Job, JobId, Task
from alto_policy.view import ClusterView, ExecutorStatus, Status

__all__ = ["Dispatch", "Placement"]

Placement = Callable[[Sequence[Task], ClusterView], Sequence[Task]]
"""Of tasks that wait those that start now, in order. Asked of all of them where GPUs are free;
of one that begins to wait where none is: nothing can start, and whatever it believes of the task
it may work out ahead."""

# Unions that are written where they are asked cost 0.1 us a time.
_STARTING = ExecutorDown, NodeUp, TaskResized, TimerFired
_RETURNING = ExecutorDown, TaskResized
# Looked up once: a member asked of its enum takes 0.09 us in Python 3.11, a global 0.005.
_ENDED, _PAUSED, _QUEUED = Status.ENDED, Status.PAUSED, Status.QUEUED
_EVICTED, _HAS_PAUSED = Departure.EVICTED, Departure.PAUSED


class Dispatch:
    """Trains every job to its end; a subclass says which jobs go early, and which may train.

    Waiting tasks get GPUs in the order of their `key` and of arrival, or in that of `place`; one
    that needs more GPUs than are free does not hold up those after it, if the policy `backfills`.
    """

    jobs_per_gpu: int | None = None  # no more than fit, by default
    keeps_order: bool = False  # launch in the order of `ready`, not by batch size
    backfills: bool = True
    hears_all: bool = False  # starts no task before all that arrive at its moment have done so
    same_node: bool = False  # GPUs of a task are all of one node
    move_tokens: int | None = None  # that a GPU trains while a job moves; None: none moves

    def __init__(self, place: Placement | None = None) -> None:
        self._place = place
        self._queue = TaskQueue()
        self._gangs: Gangs | None = None
        self._heard: dict[JobId, int] = {}  # step of the last report of each that was decided on

    @property
    def is_placed(self) -> bool:
        """Whether a placement, and not its own order, says who starts."""
        return self._place is not None

    def key(self, task: Task) -> float:
        """Of waiting tasks the one with the lowest key is started first."""
        return 0.0

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        """What becomes of a job on its last report, which is finite and not at its end."""
        return ()

    def cut(self, task: Task, cluster: ClusterView, gone: Collection[JobId]) -> Iterable[Stop]:
        """Paused or queued jobs of the task to stop now; those in `gone` are stopped already."""
        return ()

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        """Groups of jobs that may be launched, the most urgent group first."""
        return cluster.jobs(task.id, _PAUSED), cluster.jobs(task.id, _QUEUED)

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        # A chain of isinstance: patterns of classes take four times as long, on every event.
        if isinstance(event, LossReported):
            return self._on_report(event, cluster)
        if isinstance(event, JobLeft):
            task = cluster.task_of(event.job)
            return self._attend(task, cluster, self._due(task, cluster, event), event.job)
        if isinstance(event, TaskArrived):
            if not self.gangs(cluster).can_hold(event.task.num_gpus, event.task.kinds):
                return tuple(Stop(job.id, ExitReason.TOO_LARGE) for job in event.task.jobs)
            self._wait(event.task, cluster)
            return (WakeAt(event.t),) if self.hears_all else self._start_executors(cluster)
        if isinstance(event, ExecutorUp):
            task = cluster.tasks()[event.task]
            wider = _wider(task, cluster, self.gangs(cluster)) if task.widths else ()
            return wider or self._attend(task, cluster, self._due(task, cluster))
        if isinstance(event, _STARTING):
            if isinstance(event, _RETURNING) and cluster.is_waiting(event.task):
                self._wait(cluster.tasks()[event.task], cluster)
            starts = self._start_executors(cluster)
            return starts if type(event) is not TaskResized else _outgrown(event, cluster) + starts
        if isinstance(event, TaskCancelled):
            ends = tuple(_cancel(cluster.tasks()[event.task], cluster))
            return (*ends, *self._start_executors(cluster))
        if isinstance(event, NodeDown):
            return ()
        assert_never(event)

    def _due(self, task: Task, cluster: ClusterView, left: JobLeft | None = None) -> Sequence[Stop]:
        """Paused and queued jobs that need not train again. Whoever does not fit, or not any more;
        and by its last report a job that had been told to pause when that came: it was kept from
        the policy, and whether a job goes on is no matter of moments."""
        if left is not None and left.how is not _HAS_PAUSED:
            return _too_large(task, cluster) if left.how is _EVICTED else ()
        misfits = _too_large(task, cluster) if left is None else ()
        jobs = cluster.jobs(task.id, _PAUSED) if left is None else (left.job,)
        if not jobs:
            return misfits
        paused = [job for job in jobs if cluster.status(job) is _PAUSED]
        last = [history[-1] for job in paused if (history := cluster.history(job))]
        late = [report for report in last if self._heard.get(report.job) != report.step]
        if not late:
            return misfits
        gone = {stop.job for stop in misfits}
        decided = [each for report in late for each in self._on_report(report, cluster)]
        stops = (each for each in decided if isinstance(each, Stop) and each.job not in gone)
        return (*misfits, *stops)

    def _on_report(self, report: LossReported, cluster: ClusterView) -> tuple[Decision, ...]:
        self._heard[report.job] = report.step
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
        departed: JobId | None = None,
    ) -> tuple[Decision, ...]:
        """Stop what need not train, launch what fits, end the executor when all is done."""
        ended = len(cluster.jobs(task.id, _ENDED))
        if ended == len(task.jobs):
            return (StopExecutor(task.id),)  # before all else: each task of a trace ends so
        gone = {stop.job for stop in stops} if stops else set()
        if cuts := tuple(self.cut(task, cluster, gone)):
            stops = (*stops, *cuts)
            gone.update([stop.job for stop in cuts])
        if ended + len(gone) == len(task.jobs):
            return (*stops, StopExecutor(task.id))
        launches = self._launches(task, cluster, gone, departed)
        if launches or departed is None or self.move_tokens is None:
            return (*stops, *launches)
        return (*stops, *_pauses(task, cluster, self.move_tokens))

    def _launches(
        self, task: Task, cluster: ClusterView, gone: Collection[JobId], departed: JobId | None
    ) -> Sequence[Launch]:
        groups = self.ready(task, cluster)
        gpus, memory = _executor(task, cluster)
        if len(task.jobs) == 1:  # the GPUs are empty if it waits, and it is not too large
            return (Launch(task.id, gpus[0], (task.jobs[0].id,)),) if any(groups) else ()
        first = cluster.spec(departed).hyperparameters.batch_size if departed is not None else None
        ordered: list[Job] = []
        for group in groups:
            if group:
                jobs = [cluster.spec(job) for job in group if job not in gone]
                ordered += jobs if self.keeps_order else by_batch_size(jobs, first)
        if not ordered:
            return ()
        residents = {gpu: [cluster.spec(job) for job in cluster.residents(gpu)] for gpu in gpus}
        return pack(ordered, residents, memory, task, self.jobs_per_gpu)

    def gangs(self, cluster: ClusterView) -> Gangs:
        known = self._gangs
        if known is None or known.gpus is not cluster.gpus:
            known = self._gangs = Gangs(cluster.gpus, same_node=self.same_node)
        return known

    def _wait(self, task: Task, cluster: ClusterView) -> None:
        if self._place is None:
            key = self.key(task)
            if key is None or key != key:  # of a user's policy: with such keys any order is sorted
                raise IllegalDecisionError(f"key returns {key}, expected a number")
            self._queue.add(task, key)
        elif not cluster.free_gpus():  # it can make up its mind on one task now, not on a thousand
            self._place((task,), cluster)

    def _start_executors(self, cluster: ClusterView) -> tuple[StartExecutor, ...]:
        free = cluster.free_gpus()
        if not free:
            return ()
        gangs = self.gangs(cluster)
        if self._place is not None:
            tasks = tuple(cluster.tasks()[task] for task in cluster.waiting())
            found = gangs.found(free, self._place(tasks, cluster))
            return tuple([StartExecutor(task.id, gang) for task, gang in found])
        starts = []
        while free:
            task = self._queue.pop(free, gangs if self.backfills else None)
            if task is None:
                break
            if not _is_as_queued(task, cluster):
                continue
            if not (self.backfills or gangs.fits(free, task.num_gpus, task.kinds)):
                self._wait(task, cluster)
                break
            gang, free = gangs.take(free, task.num_gpus, task.kinds)
            starts.append(StartExecutor(task.id, gang))
        return tuple(starts)


def _is_as_queued(task: Task, cluster: ClusterView) -> bool:
    """Whether it still waits, and for as many GPUs."""
    return cluster.is_waiting(task.id) and cluster.tasks()[task.id].num_gpus == task.num_gpus


def _cancel(task: Task, cluster: ClusterView) -> Iterator[Stop | StopExecutor]:
    """End all jobs of the task; its executor at once if no job is in it, else after the last."""
    for status in (Status.QUEUED, Status.PAUSED, Status.RUNNING, Status.PAUSING):
        for job in cluster.jobs(task.id, status):
            yield Stop(job, ExitReason.CANCELLED)
    executor = cluster.executor(task.id)
    is_idle = executor is not None and not any(cluster.residents(gpu) for gpu in executor.gpus)
    if executor is not None and is_idle and executor.status is not ExecutorStatus.STOPPING:
        yield StopExecutor(task.id)


def _pauses(task: Task, cluster: ClusterView, move_tokens: int) -> Iterable[Pause]:
    """Of jobs to be launched again on a GPU with less to do; none while others come or go."""
    gpus, _ = _executor(task, cluster)
    if len(gpus) == 1:
        return ()
    running = set(cluster.jobs(task.id, Status.RUNNING))
    lanes = {gpu: tuple(cluster.residents(gpu)) for gpu in gpus}
    if any(job not in running for lane in lanes.values() for job in lane):
        return ()
    going = {gpu: [_going(job, cluster) for job in lane] for gpu, lane in lanes.items()}
    return [Pause(job) for job in moves(going, task.max_length, move_tokens)]


def _going(job: JobId, cluster: ClusterView) -> Going:
    spec, history = cluster.spec(job), cluster.history(job)
    steps = spec.steps - (history[-1].step if history else 0)
    return Going(spec, steps * spec.hyperparameters.accumulation)


def _wider(task: Task, cluster: ClusterView, gangs: Gangs) -> tuple[Resize, ...]:
    """Where the executor that has come up does not hold jobs that one on more GPUs does. It ends
    when that is told."""
    gpus, memory = _executor(task, cluster)
    if not memory.widths or len(gpus) in memory.widths:
        return ()
    can = (width for width in memory.widths if gangs.can_hold(width, task.kinds))
    return tuple([Resize(task.id, width) for width in islice(can, 1)])


def _outgrown(event: TaskResized, cluster: ClusterView) -> tuple[StopExecutor, ...]:
    """Where an executor that holds nothing has other GPUs than its task is to have by now."""
    if (executor := cluster.executor(event.task)) is None:
        return ()
    is_empty = not any(cluster.residents(gpu) for gpu in executor.gpus)
    is_up = executor.status is ExecutorStatus.UP
    if is_empty and is_up and len(executor.gpus) != cluster.tasks()[event.task].num_gpus:
        return (StopExecutor(event.task),)
    return ()


def _too_large(task: Task, cluster: ClusterView) -> Sequence[Stop]:
    """The waiting jobs that would not fit on an empty GPU."""
    _, memory = _executor(task, cluster)
    misfits: set[JobId] = set()
    for job in task.jobs:
        if not fits_alone(job, memory, task):
            misfits.add(job.id)
    if not misfits:
        return ()
    return [
        Stop(name, ExitReason.TOO_LARGE)
        for status in (Status.PAUSED, Status.QUEUED)
        for name in cluster.jobs(task.id, status)
        if name in misfits
    ]


def _executor(task: Task, cluster: ClusterView) -> tuple[tuple[GpuId, ...], MemoryModel]:
    """GPUs and memory of the executor, which has told of itself or of a job of its own."""
    executor = cluster.executor(task.id)
    assert executor is not None
    assert executor.memory is not None
    return executor.gpus, executor.memory
