"""Which moves of jobs and executors are legal."""

from alto_policy.decisions import Launch, Pause, StartExecutor, Stop, StopExecutor
from alto_policy.events import Departure, ExecutorDown, ExecutorUp
from alto_policy.view import ExecutorStatus, Status

__all__ = [
    "NEXT_EXECUTOR_STATUS",
    "NEXT_STATUS",
    "IllegalDecisionError",
    "ImpossibleEventError",
]


class IllegalDecisionError(Exception):
    """A policy asked for something that the state of the cluster rules out."""


class ImpossibleEventError(Exception):
    """A backend told something that cannot have happened."""


Cause = type[Launch | Pause | Stop | ExecutorDown] | Departure
ExecutorCause = type[StartExecutor | ExecutorUp | StopExecutor]

NEXT_STATUS: dict[tuple[Status, Cause], Status] = {
    (Status.QUEUED, Launch): Status.RUNNING,
    (Status.PAUSED, Launch): Status.RUNNING,
    (Status.RUNNING, Pause): Status.PAUSING,
    (Status.RUNNING, Stop): Status.STOPPING,
    (Status.PAUSING, Stop): Status.STOPPING,
    (Status.QUEUED, Stop): Status.ENDED,
    (Status.PAUSED, Stop): Status.ENDED,
    (Status.RUNNING, Departure.FINISHED): Status.ENDED,
    (Status.PAUSING, Departure.FINISHED): Status.ENDED,  # done before it was told
    (Status.STOPPING, Departure.FINISHED): Status.ENDED,  # done before it was told
    (Status.RUNNING, Departure.FAILED): Status.ENDED,
    (Status.PAUSING, Departure.FAILED): Status.ENDED,
    (Status.STOPPING, Departure.FAILED): Status.ENDED,
    (Status.PAUSING, Departure.PAUSED): Status.PAUSED,
    (Status.STOPPING, Departure.PAUSED): Status.ENDED,  # it had paused before it was told
    (Status.STOPPING, Departure.STOPPED): Status.ENDED,
    (Status.RUNNING, Departure.EVICTED): Status.PAUSED,
    (Status.PAUSING, Departure.EVICTED): Status.PAUSED,
    (Status.STOPPING, Departure.EVICTED): Status.ENDED,
    (Status.RUNNING, ExecutorDown): Status.PAUSED,
    (Status.PAUSING, ExecutorDown): Status.PAUSED,
    (Status.STOPPING, ExecutorDown): Status.ENDED,
}

NEXT_EXECUTOR_STATUS: dict[tuple[ExecutorStatus | None, ExecutorCause], ExecutorStatus] = {
    (None, StartExecutor): ExecutorStatus.STARTING,
    (ExecutorStatus.STARTING, ExecutorUp): ExecutorStatus.UP,
    (ExecutorStatus.STARTING, StopExecutor): ExecutorStatus.STOPPING,
    (ExecutorStatus.UP, StopExecutor): ExecutorStatus.STOPPING,
}
