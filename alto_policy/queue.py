"""Tasks that wait for GPUs, in an order that does not change while they wait."""

from collections.abc import Callable
from heapq import heappop, heappush

from alto_policy.types import Task, TaskId

__all__ = ["TaskQueue"]


class TaskQueue:
    """One heap for each width, so that the first task that fits is found without a scan.

    Ties go to the task that was added first in its life.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[float, int, TaskId]]] = {}
        self._numbers: dict[TaskId, int] = {}

    def add(self, task: Task, key: float) -> None:
        """Lower keys come first; a task that returns keeps its place among equals."""
        number = self._numbers.setdefault(task.id, len(self._numbers))
        heappush(self._heaps.setdefault(task.num_gpus, []), (key, number, task.id))

    def pop(self, widest: int | None, waits: Callable[[TaskId], bool]) -> TaskId | None:
        """Take the first task that is not wider; what does not wait any more is forgotten."""
        while True:
            first: list[tuple[float, int, TaskId]] | None = None
            for width, heap in self._heaps.items():
                fits = heap and (widest is None or width <= widest)
                if fits and (first is None or heap[0] < first[0]):
                    first = heap
            if first is None:
                return None
            task = heappop(first)[2]
            if waits(task):
                return task
