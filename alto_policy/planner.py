"""Placement as a policy is given it: `Dispatch(place=Planner(...))` plans anew on every event."""

from collections.abc import Callable, Iterable, Sequence

from alto_policy.gangs import Gangs
from alto_policy.placement import Item, Objective, Pool, improve, list_rule, starts_now
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView

__all__ = ["Improver", "Planner", "Remaining"]

Remaining = Callable[[Task, ClusterView], float]  # seconds on its own GPUs, from where it stands
Improver = Callable[[Sequence[Item], Pool, Sequence[int]], Sequence[int]]


class Planner:
    """Orders the waiting tasks, and names those that start now.

    `remaining` is the policy's belief; it is asked once for a task that waits, and on every event
    for one that runs: exits shorten it. The last order is the first guess of the next search.

    The search takes all GPUs for one kind. Where there are several, its order is followed with
    those that are free of the kinds on which each task fits; nothing is reserved there.
    """

    def __init__(
        self,
        remaining: Remaining,
        *,
        objective: Objective = Objective.MAKESPAN,
        nodes: int = 2_000,
        reserve: bool = False,
        improver: Improver | None = None,
    ) -> None:
        self._remaining = remaining
        self._objective = objective
        self._nodes = nodes
        self._reserve = reserve
        self._improver = improver
        self._order: tuple[TaskId, ...] = ()
        self._items: dict[TaskId, Item] = {}  # of those that wait
        self._started: dict[TaskId, Task] = {}
        self._gangs: Gangs | None = None

    def __call__(self, tasks: Sequence[Task], cluster: ClusterView) -> Sequence[Task]:
        items = [self._item(task, cluster) for task in tasks]
        free = len(cluster.free_gpus())
        if not items or not free:
            return ()
        pool = self._pool(free, cluster)
        order: Sequence[int] = improve(
            items, pool, objective=self._objective, nodes=self._nodes, hints=self._hints(items)
        ).order
        if self._improver is not None:
            order = self._improver(items, pool, order)
        self._order = tuple(items[index].id for index in order)
        self._gangs = Gangs.of(cluster.gpus, self._gangs)
        starting = (
            [tasks[i] for i in starts_now(order, items, pool, reserve=self._reserve)]
            if self._gangs.is_uniform
            else [
                task
                for task, _ in self._gangs.found(cluster.free_gpus(), [tasks[i] for i in order])
            ]
        )
        for task in starting:
            self._started[task.id] = task
            del self._items[task.id]
        return starting

    def _item(self, task: Task, cluster: ClusterView) -> Item:
        item = self._items.get(task.id)
        if item is None or item.width != task.num_gpus:
            item = Item(task.id, task.num_gpus, self._remaining(task, cluster))
            self._items[task.id] = item
        return item

    def _pool(self, free: int, cluster: ClusterView) -> Pool:
        """GPUs whose executor is on its way out are as good as free, but not yet. So are
        those of a node that is down: nobody knows when they come back."""
        self._started = {
            name: task for name, task in self._started.items() if cluster.executor(name)
        }
        running = tuple(
            (self._remaining(task, cluster), len(executor.gpus))
            for task in self._started.values()
            if (executor := cluster.executor(task.id)) is not None
        )
        leaving = len(cluster.gpus) - free - sum(width for _, width in running)
        return Pool(free, ((0.0, leaving), *running) if leaving else running)

    def _hints(self, items: Sequence[Item]) -> Sequence[Sequence[int]]:
        """The last order of those that still wait; with new ones among them the list rule too."""
        index_of = {item.id: index for index, item in enumerate(items)}
        known = [index_of.pop(name) for name in self._order if name in index_of]
        if not index_of:
            return (known,)
        return (list_rule(items, self._objective), _merged(known, index_of.values(), items))


def _merged(known: Sequence[int], new: Iterable[int], items: Sequence[Item]) -> Sequence[int]:
    """Each new one before the first that is shorter."""
    coming = sorted(new, key=lambda index: -items[index].seconds)
    merged: list[int] = []
    for index in known:
        while coming and items[coming[0]].seconds > items[index].seconds:
            merged.append(coming.pop(0))
        merged.append(index)
    return [*merged, *coming]
