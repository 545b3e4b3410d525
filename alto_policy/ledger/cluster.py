"""The one ledger of who runs where, folded from events and decisions."""

from dataclasses import replace
from typing import Never

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
)
from alto_policy.ledger.records import JobRecord, Records, TaskRecord
from alto_policy.ledger.transitions import (
    NEXT_EXECUTOR_STATUS,
    NEXT_STATUS,
    IllegalDecisionError,
    ImpossibleEventError,
)
from alto_policy.types import JobId, Task, TaskId
from alto_policy.view import ClusterView, Executor, ExecutorStatus, Status

__all__ = [
    "Cluster",
    "ClusterView",
    "Executor",
    "ExecutorStatus",
    "IllegalDecisionError",
    "ImpossibleEventError",
    "Status",
]

# Looked up once: a member asked of its enum takes 0.09 us in Python 3.11, a global 0.005.
_QUEUED, _RUNNING = Status.QUEUED, Status.RUNNING
_ABSENT = Status.QUEUED, Status.PAUSED
_UP, _STOPPING = ExecutorStatus.UP, ExecutorStatus.STOPPING
_FINISHED, _FAILED, _EVICTED = Departure.FINISHED, Departure.FAILED, Departure.EVICTED


class Cluster(Records):
    """A ClusterView that moves: `apply` what has happened, `commit` what was decided."""

    def apply(self, event: Event) -> bool:
        """Record an event; False if it is stale news, to be kept from the policy.

        Raises ImpossibleEventError, and changes nothing, if it contradicts what is known.
        """
        # A chain of isinstance: patterns of classes take four times as long, on every event.
        if isinstance(event, LossReported):
            return self._report(event)
        if isinstance(event, JobLeft):
            self._leave(event.job, event.how)
        elif isinstance(event, TaskArrived):
            self._arrive(event.task)
        elif isinstance(event, ExecutorUp):
            return self._come_up(event)
        elif isinstance(event, ExecutorDown):
            self._go_down(event)
        elif isinstance(event, TaskCancelled):
            return self._cancel(event.task)
        else:
            return self._change(event)
        return True

    def commit(self, decision: Decision) -> None:
        """Record a decision; raises IllegalDecisionError, and changes nothing, if it is illegal."""
        if isinstance(decision, Launch):
            self._launch(decision)
        elif isinstance(decision, StartExecutor):
            self._start(decision)
        elif isinstance(decision, StopExecutor):
            self._stop_executor(decision)
        elif isinstance(decision, Pause):
            _legal(self._of_job, decision, decision.job).move(Status.PAUSING)
        elif isinstance(decision, Stop):
            record = _legal(self._of_job, decision, decision.job)
            record.reason = decision.reason
            record.move(NEXT_STATUS[record.status, Stop])
            if record.of_task.is_over:
                self._waiting.pop(record.of_task.task.id, None)
        elif isinstance(decision, Resize):
            _check_resize(self._of_task, decision)
        elif not isinstance(decision, WakeAt):
            other: Never = decision  # which the type checker holds; a user's policy has none
            raise IllegalDecisionError(f"decides {other!r}, expected one of alto_policy.decisions")

    def _arrive(self, task: Task) -> None:
        name, of_job = task.id, self._of_job
        if name in self._tasks:
            raise ImpossibleEventError(f"TaskArrived: task {name} has arrived before")
        for job in task.jobs:
            if job.id in of_job:
                raise ImpossibleEventError(
                    f"TaskArrived: job {job.id} of task {name} belongs to another task"
                )
        queued: dict[JobId, None] = {}
        record = TaskRecord(task, len(self._tasks), {_QUEUED: queued})
        for job in task.jobs:
            queued[job.id] = None
            of_job[job.id] = JobRecord(job, record)
        self._tasks[name], self._of_task[name] = task, record
        self._waiting[name] = None

    def _cancel(self, task: TaskId) -> bool:
        record = self._of_task.get(task)
        if record is None:
            raise ImpossibleEventError(f"TaskCancelled: task {task} is unknown")
        if record.is_over or record.is_cancelled:
            return False
        record.is_cancelled = True
        self._waiting.pop(task, None)
        return True

    def _come_up(self, event: ExecutorUp) -> bool:
        record, executor = _present(self._of_task, event)
        if executor.status is _STOPPING:
            return False  # it came up before it was told
        status = NEXT_EXECUTOR_STATUS.get((executor.status, ExecutorUp))
        if status is None:
            raise ImpossibleEventError(
                f"ExecutorUp: the executor of task {event.task} is {executor.status.value}"
            )
        memory = event.memory
        if record.largest_capacity is not None:
            memory = replace(memory, capacity=min(memory.capacity, record.largest_capacity))
        record.executor = Executor(executor.gpus, status, memory)
        if memory.widths:
            record.holding_widths = memory.widths
            record.task = self._tasks[event.task] = record.on_holding(record.task)
        return True

    def _go_down(self, event: ExecutorDown) -> None:
        record, executor = _present(self._of_task, event)
        for gpu in executor.gpus:
            if residents := self._residents[gpu]:
                for job in residents:
                    resident = self._of_job[job]
                    resident.gpu = None
                    resident.move(NEXT_STATUS[resident.status, ExecutorDown])
                residents.clear()
        self._pool.give_back(executor.gpus)
        record.executor = None
        if not (record.is_over or record.is_cancelled):
            self._waiting[event.task] = None
            self._has_returned = True

    def _report(self, report: LossReported) -> bool:
        record = self._of_job.get(report.job)
        if record is None or record.status in _ABSENT:
            state = record.status.value if record is not None else "unknown"
            raise ImpossibleEventError(f"LossReported: job {report.job} is {state}")
        if not 1 <= report.step <= record.spec.steps:
            raise ImpossibleEventError(
                f"LossReported: job {report.job} has {record.spec.steps} steps, got {report.step}"
            )
        if record.history and report.step <= record.history[-1].step:
            return False  # trained again from an older checkpoint
        record.hear(report)
        return record.status is _RUNNING

    def _leave(self, job: JobId, how: Departure) -> None:
        record = self._of_job.get(job)
        status = NEXT_STATUS.get((record.status, how)) if record is not None else None
        if record is None or status is None:
            state = record.status.value if record is not None else "unknown"
            raise ImpossibleEventError(f"JobLeft ({how.value}): job {job} is {state}")
        if how is _FINISHED or how is _FAILED:
            record.reason = None
        elif how is _EVICTED:
            self._learn_capacity(record)
        assert record.gpu is not None
        del self._residents[record.gpu][job]
        record.gpu = None
        record.move(status)

    def _learn_capacity(self, evicted: JobRecord) -> None:
        """What its GPU held was too much: from now on the task packs at least a byte less."""
        record = evicted.of_task
        assert evicted.gpu is not None
        assert record.executor is not None
        assert record.executor.memory is not None
        memory = record.executor.memory
        together = (self._of_job[job].spec for job in self._residents[evicted.gpu])
        too_much = memory.bytes(together, record.task.max_length)
        record.largest_capacity = min(memory.capacity, too_much - 1)
        memory = replace(memory, capacity=record.largest_capacity)
        record.executor = replace(record.executor, memory=memory)

    def _start(self, start: StartExecutor) -> None:
        record, gpus = self._of_task.get(start.task), start.gpus
        if record is None:
            raise IllegalDecisionError(f"{start}: no such task")
        if record.executor is not None:
            raise IllegalDecisionError(f"{start}: its executor is {record.executor.status.value}")
        wanted, kinds, pool = record.task.num_gpus, record.task.kinds, self._pool
        if len(gpus) != wanted or (wanted > 1 and len(set(gpus)) != wanted):
            raise IllegalDecisionError(f"{start}: the task takes {wanted} GPUs")
        for gpu in gpus:
            if gpu not in self._residents:
                raise IllegalDecisionError(f"{start}: there is no GPU {gpu}")
            if gpu in pool.owner:
                raise IllegalDecisionError(f"{start}: GPU {gpu} is held by {pool.owner[gpu]}")
            if gpu in pool.lost:
                raise IllegalDecisionError(f"{start}: the node of GPU {gpu} is down")
            if kinds is not None and (kind := pool.kind_of[gpu]) not in kinds:
                raise IllegalDecisionError(
                    f"{start}: GPU {gpu} is of kind {kind}, too small for it"
                )
        pool.take(gpus, start.task)
        record.executor = Executor(gpus, NEXT_EXECUTOR_STATUS[None, StartExecutor])
        self._waiting.pop(start.task, None)

    def _stop_executor(self, stop: StopExecutor) -> None:
        record, executor = _asked(self._of_task, stop)
        status = NEXT_EXECUTOR_STATUS.get((executor.status, StopExecutor))
        if status is None:
            raise IllegalDecisionError(f"{stop}: its executor is {executor.status.value}")
        for gpu in executor.gpus:
            for job in self._residents[gpu]:
                raise IllegalDecisionError(f"{stop}: job {job} is {self.status(job).value}")
        record.executor = Executor(executor.gpus, status, executor.memory)

    def _launch(self, launch: Launch) -> None:
        record, executor = _asked(self._of_task, launch)
        gpu, jobs = launch.gpu, launch.jobs
        if executor.status is not _UP:
            raise IllegalDecisionError(f"{launch}: its executor is {executor.status.value}")
        if gpu not in executor.gpus:
            raise IllegalDecisionError(f"{launch}: its executor has GPUs {executor.gpus}")
        if len(jobs) != 1 and (not jobs or len(set(jobs)) != len(jobs)):
            raise IllegalDecisionError(f"{launch}: the jobs must be distinct and at least one")
        residents = self._residents[gpu]
        together = [self._of_job[job].spec for job in residents] if residents else []
        starters: list[JobRecord] = []
        for job in jobs:
            starter = _legal(self._of_job, launch, job)
            if starter.of_task is not record:
                raise IllegalDecisionError(f"{launch}: job {job} is of another task")
            starters.append(starter)
            together.append(starter.spec)
        assert executor.memory is not None
        if not executor.memory.fits(together, record.task.max_length):
            raise IllegalDecisionError(f"{launch}: no room beside {list(residents)}")
        for starter in starters:
            residents[starter.spec.id] = None
            starter.gpu = gpu
            starter.move(_RUNNING)


def _present(
    tasks: dict[TaskId, TaskRecord], event: ExecutorUp | ExecutorDown
) -> tuple[TaskRecord, Executor]:
    record = tasks.get(event.task)
    if record is None or record.executor is None:
        raise ImpossibleEventError(f"{type(event).__name__}: task {event.task} has no executor")
    return record, record.executor


def _asked(
    tasks: dict[TaskId, TaskRecord], decision: Launch | StopExecutor
) -> tuple[TaskRecord, Executor]:
    record = tasks.get(decision.task)
    if record is None or record.executor is None:
        raise IllegalDecisionError(f"{decision}: the task has no executor")
    return record, record.executor


def _check_resize(tasks: dict[TaskId, TaskRecord], resize: Resize) -> None:
    record = tasks.get(resize.task)
    if record is None:
        raise IllegalDecisionError(f"{resize}: no such task")
    if record.is_over or record.is_cancelled:
        raise IllegalDecisionError(f"{resize}: the task is over")
    if resize.num_gpus not in record.task.widths:
        raise IllegalDecisionError(f"{resize}: the task takes {list(record.task.widths)} GPUs")


def _legal(jobs: dict[JobId, JobRecord], decision: Launch | Pause | Stop, job: JobId) -> JobRecord:
    record = jobs.get(job)
    if record is None or (record.status, decision.__class__) not in NEXT_STATUS:
        state = record.status.value if record is not None else "unknown"
        raise IllegalDecisionError(f"{decision}: job {job} is {state}")
    return record
