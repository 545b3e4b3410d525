"""What a policy asks of the world. Decisions are requests; events say what became of them."""

from dataclasses import dataclass
from enum import StrEnum

from alto_policy.frozen import quick
from alto_policy.types import GpuId, JobId, TaskId

__all__ = [
    "Decision",
    "ExitReason",
    "Launch",
    "Pause",
    "Resize",
    "StartExecutor",
    "Stop",
    "StopExecutor",
    "WakeAt",
]


class ExitReason(StrEnum):
    DIVERGED = "diverged"
    OVERFITTED = "overfitted"
    UNDERPERFORMED = "underperformed"
    NON_FINITE = "non-finite loss"
    TOO_LARGE = "does not fit"
    CANCELLED = "cancelled"
    OVER_QUOTA = "over the tenant's quota"


@quick
@dataclass(frozen=True, slots=True)
class StartExecutor:
    """Load the task's backbone on these GPUs."""

    task: TaskId
    gpus: tuple[GpuId, ...]


@quick
@dataclass(frozen=True, slots=True)
class Launch:
    """Train these jobs on one GPU of the task's executor; paused ones go on where they were."""

    task: TaskId
    gpu: GpuId
    jobs: tuple[JobId, ...]


@quick
@dataclass(frozen=True, slots=True)
class Pause:
    job: JobId


@quick
@dataclass(frozen=True, slots=True)
class Stop:
    job: JobId
    reason: ExitReason


@quick
@dataclass(frozen=True, slots=True)
class Resize:
    """Have the task's next executor take so many GPUs, one of the task's `widths`."""

    task: TaskId
    num_gpus: int


@quick
@dataclass(frozen=True, slots=True)
class StopExecutor:
    task: TaskId


@quick
@dataclass(frozen=True, slots=True)
class WakeAt:
    t: float


Decision = StartExecutor | Launch | Pause | Resize | Stop | StopExecutor | WakeAt
