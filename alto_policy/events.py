"""What the world tells a policy. `t` is seconds on the backend's own clock."""

from dataclasses import dataclass, field
from enum import StrEnum

from alto_policy.codec import LEFT_OUT
from alto_policy.frozen import quick
from alto_policy.memory import MemoryModel
from alto_policy.types import Gpu, JobId, Task, TaskId

__all__ = [
    "Departure",
    "Event",
    "ExecutorDown",
    "ExecutorUp",
    "JobLeft",
    "LossReported",
    "NodeDown",
    "NodeUp",
    "TaskArrived",
    "TaskCancelled",
    "TaskResized",
    "TimerFired",
]


class Departure(StrEnum):
    __hash__ = str.__hash__  # Enum's own is slow

    FINISHED = "finished"
    PAUSED = "paused"  # its adapter, optimizer state and place in the data are kept
    STOPPED = "stopped"
    EVICTED = "evicted"  # paused by its executor, which ran out of memory
    FAILED = "failed"

    @property
    def comes_back(self) -> bool:
        """Whether the job waits to be launched again."""
        return self is Departure.PAUSED or self is Departure.EVICTED


@quick
@dataclass(frozen=True, slots=True)
class TaskArrived:
    t: float
    task: Task


@quick
@dataclass(frozen=True, slots=True)
class TaskCancelled:
    """Nobody wants the task any more; its jobs go on until they are told to stop."""

    t: float
    task: TaskId


@quick
@dataclass(frozen=True, slots=True)
class TaskResized:
    """The task's next executor takes so many GPUs; one that is there keeps those that it has.

    A policy asked for it, or the run goes on elsewhere.
    """

    t: float
    task: TaskId
    num_gpus: int
    # Among which a policy may choose from now on; those of before where nothing is told.
    widths: tuple[int, ...] | None = field(default=None, metadata=LEFT_OUT)


@quick
@dataclass(frozen=True, slots=True)
class ExecutorUp:
    """The task's backbone is loaded on the GPUs that were asked for; jobs may be launched."""

    t: float
    task: TaskId
    memory: MemoryModel


@quick
@dataclass(frozen=True, slots=True)
class ExecutorDown:
    """The executor is gone, asked to or not. Its jobs go on from what was kept of them."""

    t: float
    task: TaskId


@quick
@dataclass(frozen=True, slots=True)
class LossReported:
    """Mean loss of a token: over the training steps since the last report, and in validation."""

    t: float
    job: JobId
    step: int
    train_loss: float
    val_loss: float


@quick
@dataclass(frozen=True, slots=True)
class JobLeft:
    """The job holds no GPU memory any more."""

    t: float
    job: JobId
    how: Departure


@quick
@dataclass(frozen=True, slots=True)
class NodeDown:
    """No GPU of the node serves until it is up again; of executors there `ExecutorDown` follows."""

    t: float
    node: str


@quick
@dataclass(frozen=True, slots=True)
class NodeUp:
    """The node is repaired, or has joined, and its GPUs are free."""

    t: float
    node: str
    gpus: tuple[Gpu, ...] = ()  # that it has from now on; none are told where they have not changed


@quick
@dataclass(frozen=True, slots=True)
class TimerFired:
    t: float


Event = (
    TaskArrived
    | TaskCancelled
    | TaskResized
    | ExecutorUp
    | ExecutorDown
    | LossReported
    | JobLeft
    | NodeDown
    | NodeUp
    | TimerFired
)
