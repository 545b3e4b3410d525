"""What a policy may know, and what a policy is."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from alto_policy.decisions import Decision, ExitReason
from alto_policy.events import Event, LossReported
from alto_policy.frozen import quick
from alto_policy.memory import MemoryModel
from alto_policy.types import Gpu, GpuId, Job, JobId, Task, TaskId

__all__ = ["ClusterView", "Executor", "ExecutorStatus", "Policy", "Status"]


class Status(Enum):
    __hash__ = object.__hash__  # members are singletons, and Enum's own hash is slow

    QUEUED = "queued"  # never trained
    RUNNING = "running"
    PAUSING = "pausing"  # told to go, still holds its memory
    STOPPING = "stopping"  # told to go, still holds its memory
    PAUSED = "paused"
    ENDED = "ended"


class ExecutorStatus(Enum):
    __hash__ = object.__hash__

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"


@quick
@dataclass(frozen=True, slots=True)
class Executor:
    """A task's copy of its backbone, on GPUs that it shares with no other task."""

    gpus: tuple[GpuId, ...]
    status: ExecutorStatus
    memory: MemoryModel | None = None  # measured when it comes up


class ClusterView(Protocol):
    """Every collection is in a fixed order and valid until the next event."""

    @property
    def gpus(self) -> tuple[Gpu, ...]: ...
    def free_gpus(self) -> tuple[GpuId, ...]: ...
    def residents(self, gpu: GpuId) -> Collection[JobId]: ...
    def tasks(self) -> Mapping[TaskId, Task]: ...
    def waiting(self) -> Collection[TaskId]: ...
    def is_waiting(self, task: TaskId) -> bool: ...
    def executor(self, task: TaskId) -> Executor | None: ...
    def jobs(self, task: TaskId, status: Status) -> Collection[JobId]: ...
    def task_of(self, job: JobId) -> Task: ...
    def spec(self, job: JobId) -> Job: ...
    def status(self, job: JobId) -> Status: ...
    def history(self, job: JobId) -> Sequence[LossReported]: ...
    def reason(self, job: JobId) -> ExitReason | None: ...


class Policy(Protocol):
    """Decides from what it has seen: no clock, no I/O, no shared randomness."""

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]: ...
