"""A policy of one's own that says how many GPUs a task has: all it may, until another one waits.

`Resize` asks for the number of GPUs of a task's next executor, `TaskResized` tells that it is so. A
task that trains gives its GPUs back before: its jobs pause, its executor ends when the last of them
has left, and on the next one they go on where they were.
"""

from collections.abc import Iterator, Sequence

from alto_policy.decisions import Decision, Resize
from alto_policy.dispatch import Dispatch
from alto_policy.events import Event, ExecutorDown, JobLeft, TaskArrived
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView, ExecutorStatus
from alto_policy.yielding import stop_if_empty, yield_gpus

__all__ = ["MakingRoom"]


class MakingRoom(Dispatch):
    same_node = True  # as executors have it

    def __init__(self) -> None:
        super().__init__()
        self._yielding: set[TaskId] = set()

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        left = cluster.task_of(event.job).id if isinstance(event, JobLeft) else None
        if left in self._yielding:
            return tuple(stop_if_empty(left, cluster))
        if isinstance(event, ExecutorDown):
            self._yielding.discard(event.task)
        decisions = super().observe(event, cluster)
        if isinstance(event, TaskArrived):
            return tuple(self._welcome(event.task, decisions, cluster))
        return decisions

    def _welcome(
        self, task: Task, decisions: Sequence[Decision], cluster: ClusterView
    ) -> Iterator[Decision]:
        free, gangs = cluster.free_gpus(), self.gangs(cluster)
        fitting = [width for width in task.widths if gangs.fits(free, width, task.kinds)]
        if fitting and fitting[-1] > task.num_gpus:
            yield Resize(task.id, fitting[-1])  # it starts when that is told, and not before
            return
        yield from decisions
        widest = max(cluster.tasks().values(), key=lambda other: _spare(other, cluster))
        if not fitting and _spare(widest, cluster):
            self._yielding.add(widest.id)
            yield Resize(widest.id, widest.widths[0])
            yield from yield_gpus(widest.id, cluster)


def _spare(task: Task, cluster: ClusterView) -> int:
    """GPUs that it could do without."""
    executor = cluster.executor(task.id)
    if executor is None or executor.status is not ExecutorStatus.UP or not task.widths:
        return 0
    return len(executor.gpus) - task.widths[0]
