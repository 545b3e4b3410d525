"""Who is where: what is known of tasks, jobs, executors and GPUs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from alto_policy.decisions import ExitReason
from alto_policy.events import LossReported
from alto_policy.types import Gpu, GpuId, Job, JobId, Task, TaskId
from alto_policy.view import Executor, Status

__all__ = ["JobRecord", "Records", "TaskRecord"]


@dataclass(slots=True)
class TaskRecord:
    task: Task
    number: int  # in the order of arrival
    by_status: dict[Status, dict[JobId, None]] = field(init=False)
    executor: Executor | None = None
    largest_capacity: int | None = None  # bytes; what out-of-memory errors have taught

    def __post_init__(self) -> None:
        self.by_status = {status: {} for status in Status}
        self.by_status[Status.QUEUED] = dict.fromkeys(job.id for job in self.task.jobs)

    @property
    def is_over(self) -> bool:
        return len(self.by_status[Status.ENDED]) == len(self.task.jobs)


@dataclass(slots=True)
class JobRecord:
    spec: Job
    of_task: TaskRecord
    status: Status = Status.QUEUED
    history: list[LossReported] = field(default_factory=list)
    reason: ExitReason | None = None
    gpu: GpuId | None = None

    def move(self, status: Status) -> None:
        del self.of_task.by_status[self.status][self.spec.id]
        self.of_task.by_status[status][self.spec.id] = None
        self.status = status


class Records:
    """Answers a policy's questions, each in constant time but for `free_gpus`."""

    def __init__(self, gpus: tuple[Gpu, ...]) -> None:
        ids = [gpu.id for gpu in gpus]
        if len(set(ids)) != len(ids):
            raise ValueError(f"gpus must have distinct ids, got {ids}")
        self.gpus = gpus
        self._residents: dict[GpuId, dict[JobId, None]] = {gpu: {} for gpu in sorted(ids)}
        self._owner: dict[GpuId, TaskId] = {}
        self._tasks: dict[TaskId, Task] = {}
        self._of_task: dict[TaskId, TaskRecord] = {}
        self._of_job: dict[JobId, JobRecord] = {}
        self._waiting: dict[TaskId, None] = {}

    def free_gpus(self) -> tuple[GpuId, ...]:
        """GPUs of no executor, lowest id first."""
        if len(self._owner) == len(self._residents):
            return ()
        return tuple(gpu for gpu in self._residents if gpu not in self._owner)

    def residents(self, gpu: GpuId) -> Collection[JobId]:
        """Jobs that hold memory of the GPU, in the order of their launches."""
        return self._residents[gpu].keys()

    def tasks(self) -> Mapping[TaskId, Task]:
        """All tasks in the order of arrival."""
        return self._tasks

    def waiting(self) -> Collection[TaskId]:
        """Unfinished tasks without an executor, in the order of arrival."""
        return self._waiting.keys()

    def executor(self, task: TaskId) -> Executor | None:
        return self._of_task[task].executor

    def jobs(self, task: TaskId, status: Status) -> Collection[JobId]:
        """Jobs of the task in that status, in the order in which they came into it."""
        return self._of_task[task].by_status[status].keys()

    def task_of(self, job: JobId) -> Task:
        return self._of_job[job].of_task.task

    def spec(self, job: JobId) -> Job:
        return self._of_job[job].spec

    def status(self, job: JobId) -> Status:
        return self._of_job[job].status

    def history(self, job: JobId) -> Sequence[LossReported]:
        """Reports of the job, each of a later step than the one before."""
        return self._of_job[job].history

    def reason(self, job: JobId) -> ExitReason | None:
        """Why the job was stopped; None if it was not, or was done before it heard of it."""
        return self._of_job[job].reason
