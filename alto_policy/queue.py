"""Tasks that wait for GPUs, in an order that does not change while they wait."""

from bisect import insort
from collections.abc import Callable
from heapq import heappop, heappush

from alto_policy.types import Task, TaskId

__all__ = ["TaskQueue"]


class TaskQueue:
    """One heap for each width, so that the first task that fits is found without a scan.

    Ties go to the task that was added first in its life.
    """

    def __init__(self) -> None:
        self._heaps: dict[int, list[tuple[float, int, Task]]] = {}
        self._widths: list[int] = []  # of all heaps, narrow ones first
        self._numbers: dict[TaskId, int] = {}

    def add(self, task: Task, key: float) -> None:
        """Lower keys come first; a task that returns keeps its place among equals."""
        width, number = task.num_gpus, self._numbers.setdefault(task.id, len(self._numbers))
        if width not in self._heaps:
            self._heaps[width] = []
            insort(self._widths, width)
        heappush(self._heaps[width], (key, number, task))

    def pop(self, widest: int | None, waits: Callable[[TaskId], bool]) -> Task | None:
        """Take the first task that is not wider; what does not wait any more is forgotten."""
        while True:
            first: list[tuple[float, int, Task]] = []
            for width in self._widths:
                if widest is not None and width > widest:
                    break
                heap = self._heaps[width]
                if heap and (not first or heap[0] < first[0]):
                    first = heap
            if not first:
                return None
            task = heappop(first)[2]
            if waits(task.id):
                return task
