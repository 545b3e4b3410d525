"""Tasks that wait for GPUs, in an order that does not change while they wait."""

from bisect import insort
from heapq import heappop, heappush

from alto_policy.gangs import Free, Gangs
from alto_policy.types import Kinds, Task, TaskId

__all__ = ["TaskQueue"]

_Heap = list[tuple[float, int, int, Task]]


class _Shapes:
    """Of tasks that can be on the same kinds: one heap for each width."""

    def __init__(self) -> None:
        self.heaps: dict[int, _Heap] = {}
        self.widths: list[int] = []  # of all heaps, narrow ones first


class TaskQueue:
    """One heap for each width and choice of kinds, so that the first task that fits is found
    without a scan.

    Ties go to the task that was added first in its life.
    """

    def __init__(self) -> None:
        self._of_kinds: dict[Kinds, _Shapes] = {}
        self._numbers: dict[TaskId, int] = {}
        self._added = 0
        self._last: dict[TaskId, int] = {}  # of each that waits: one that is resized is added again

    def add(self, task: Task, key: float) -> None:
        """Lower keys come first; a task that returns keeps its place among equals."""
        width, number = task.num_gpus, self._numbers.setdefault(task.id, len(self._numbers))
        shapes = self._of_kinds.get(task.kinds)
        if shapes is None:
            shapes = self._of_kinds[task.kinds] = _Shapes()
        if width not in shapes.heaps:
            shapes.heaps[width] = []
            insort(shapes.widths, width)
        self._added += 1
        self._last[task.id] = self._added
        heappush(shapes.heaps[width], (key, number, self._added, task))

    def pop(self, free: Free, gangs: Gangs | None) -> Task | None:
        """Take the first task for which the free GPUs have a gang, or the first of all."""
        while first := self._first(free, gangs):
            *_, added, task = heappop(first)
            if self._last.get(task.id) == added:
                del self._last[task.id]
                return task
        return None

    def _first(self, free: Free, gangs: Gangs | None) -> _Heap:
        """The heap that begins with it; an empty one if there is none."""
        first: _Heap = []
        for kinds, shapes in self._of_kinds.items():
            holds = None if gangs is None else gangs.widths(free, kinds)
            for width in shapes.widths:
                if holds is not None and width > holds.alone:
                    if width > holds.mixed:
                        break
                    if width < holds.least_mixed:
                        continue
                heap = shapes.heaps[width]
                if heap and (not first or heap[0] < first[0]):
                    first = heap
        return first
