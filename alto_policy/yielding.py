"""How a task gives its GPUs back before it is done: its jobs pause, then its executor ends."""

from collections.abc import Iterator

from alto_policy.decisions import Pause, StopExecutor
from alto_policy.types import TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["stop_if_empty", "yield_gpus"]

_RESIDENT = (Status.RUNNING, Status.PAUSING, Status.STOPPING)


def yield_gpus(task: TaskId, cluster: ClusterView) -> Iterator[Pause | StopExecutor]:
    """To be followed by `stop_if_empty` on each `JobLeft` of the task."""
    for job in cluster.jobs(task, Status.RUNNING):
        yield Pause(job)
    yield from stop_if_empty(task, cluster)


def stop_if_empty(task: TaskId, cluster: ClusterView) -> Iterator[StopExecutor]:
    """End an executor that no job is in."""
    if not any(cluster.jobs(task, status) for status in _RESIDENT):
        yield StopExecutor(task)
