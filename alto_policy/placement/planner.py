"""Placement as a policy is given it: `Dispatch(place=Planner(...))` plans anew on every event."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from alto_policy.gangs import Gangs
from alto_policy.placement.on_kinds import (
    Lanes,
    OnKinds,
    improve_on_kinds,
    on_each,
    schedule_on_kinds,
    starts_on_kinds,
    where_it_fits,
)
from alto_policy.placement.plans import Item, Objective, Pool, improve, list_rule, starts_now
from alto_policy.types import Task, TaskId
from alto_policy.view import ClusterView, Executor

__all__ = ["Improver", "Planner", "Remaining"]

Remaining = Callable[[Task, ClusterView], float]  # seconds on its own GPUs, from where it stands


class Improver(Protocol):
    """Makes a plan no worse, for the makespan."""

    def __call__(self, items: Sequence[Item], pool: Pool, order: Sequence[int]) -> Sequence[int]:
        """An order of the items."""

    def on_kinds(
        self,
        items: Sequence[Item],
        times: Sequence[OnKinds],
        lanes: Lanes,
        order: Sequence[int],
        chosen: Sequence[int | None],
    ) -> tuple[Sequence[int], Sequence[int | None]]:
        """An order, and of each item the only kind on which it may be, or None; these are given."""


_SOON = 1e-9  # seconds


class Planner:
    """Orders the waiting tasks, and names those that start now.

    `remaining` is the policy's belief; it is asked once for a task that waits, and on every event
    for one that runs: exits shorten it. The last order is the first guess of the next search.

    GPUs of a node that is down are not there until it is back: nobody waits for them in a plan, and
    a task that needs them is in none.

    Where there are several kinds of GPU a task takes `remaining` over its speed on each, and is
    named with the one on which it starts. There a plan reserves for all that wait, asked to or not.
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
        self._times: dict[TaskId, tuple[Item, OnKinds]] = {}  # the same on several kinds
        self._chosen: dict[TaskId, str] = {}  # kinds, by the improver
        self._started: dict[TaskId, Task] = {}
        self._gangs: Gangs | None = None
        self._timed_on: Gangs | None = None  # that the times belong to

    def __call__(self, tasks: Sequence[Task], cluster: ClusterView) -> Sequence[Task]:
        items = [self._item(task, cluster) for task in tasks]
        free = len(cluster.free_gpus())
        if not items or not free:
            return ()
        self._gangs = gangs = Gangs.of(cluster.gpus, self._gangs)
        starting = (
            self._in_order(tasks, items, self._pool(free, cluster))
            if gangs.is_uniform
            else self._on_kinds(tasks, items, gangs, cluster)
        )
        for task, _ in starting:
            self._started[task.id] = task
            del self._items[task.id]
            self._times.pop(task.id, None)
        return [named for _, named in starting]

    def _in_order(
        self, tasks: Sequence[Task], items: Sequence[Item], pool: Pool
    ) -> list[tuple[Task, Task]]:
        """Those that start now, and what they are named, which is the same here."""
        if max([item.width for item in items]) > pool.gpus:
            fitting = [place for place, item in enumerate(items) if item.width <= pool.gpus]
            tasks, items = [tasks[i] for i in fitting], [items[i] for i in fitting]
        order: Sequence[int] = improve(
            items, pool, objective=self._objective, nodes=self._nodes, hints=self._hints(items)
        ).order
        if self._improver is not None:
            order = self._improver(items, pool, order)
        self._order = tuple(items[index].id for index in order)
        starting = starts_now(order, items, pool, reserve=self._reserve)
        return [(tasks[i], tasks[i]) for i in starting]

    def _on_kinds(
        self, tasks: Sequence[Task], items: Sequence[Item], gangs: Gangs, cluster: ClusterView
    ) -> list[tuple[Task, Task]]:
        """Those that start now, and what they are named: of the kind on which they do."""
        if gangs is not self._timed_on:
            self._timed_on = gangs
            self._times.clear()
        lanes = self._lanes(gangs, cluster)
        found = [
            (task, item, on)
            for task, item in zip(tasks, items, strict=True)
            if (on := where_it_fits(item.width, self._time(task, item, gangs), lanes)) is not None
        ]
        if not found:
            return []
        tasks, items = [task for task, *_ in found], [item for _, item, _ in found]
        times = [on for *_, on in found]
        order: Sequence[int]
        order, slots = improve_on_kinds(
            items,
            times,
            lanes,
            objective=self._objective,
            nodes=self._nodes,
            hints=self._hints(items),
        )
        if self._improver is not None:
            number = {kind: place for place, kind in enumerate(gangs.kinds)}
            known = [number.get(self._chosen.get(item.id, "")) for item in items]
            given = [
                kind if on.only(kind).seconds else None
                for kind, on in zip(known, times, strict=True)
            ]
            order, chosen = self._improver.on_kinds(items, times, lanes, order, given)
            self._chosen = {
                item.id: gangs.kinds[kind]
                for item, kind in zip(items, chosen, strict=True)
                if kind is not None
            }
            times = [on.only(kind) for on, kind in zip(times, chosen, strict=True)]
            slots = schedule_on_kinds(order, items, times, lanes)
        self._order = tuple(items[index].id for index in order)
        return [
            (tasks[i], tasks[i] if kind is None else _narrowed(tasks[i], gangs.kinds[kind]))
            for i, kind in starts_on_kinds(order, items, times, lanes, slots)
        ]

    def _time(self, task: Task, item: Item, gangs: Gangs) -> OnKinds:
        known = self._times.get(task.id)
        if known is None or known[0] is not item:
            known = self._times[task.id] = item, on_each(task, item.seconds, gangs.of_kind)
        return known[1]

    def _lanes(self, gangs: Gangs, cluster: ClusterView) -> Sequence[Sequence[float]]:
        """GPUs of executors on their way out are as good as free, but not yet."""
        until = dict.fromkeys(cluster.free_gpus(), 0.0)
        for executor, seconds in self._running(cluster):
            until.update(dict.fromkeys(executor.gpus, max(seconds, _SOON)))
        lanes: dict[str, list[float]] = {kind: [] for kind in gangs.kinds}
        for gpu, seconds in until.items():
            lanes[gangs.place_of[gpu][0]].append(seconds)
        return [sorted(lane) for lane in lanes.values()]

    def _item(self, task: Task, cluster: ClusterView) -> Item:
        item = self._items.get(task.id)
        if item is None or item.width != task.num_gpus:
            item = Item(task.id, task.num_gpus, self._remaining(task, cluster))
            self._items[task.id] = item
        return item

    def _pool(self, free: int, cluster: ClusterView) -> Pool:
        """GPUs of executors on their way out are as good as free, but not yet."""
        return Pool(free, tuple([(s, len(each.gpus)) for each, s in self._running(cluster)]))

    def _running(self, cluster: ClusterView) -> Iterator[tuple[Executor, float]]:
        """With the seconds that are left to them."""
        self._started = {
            name: task for name, task in self._started.items() if cluster.executor(name)
        }
        for task in self._started.values():
            if (executor := cluster.executor(task.id)) is not None:
                yield executor, self._remaining(task, cluster)

    def _hints(self, items: Sequence[Item]) -> Sequence[Sequence[int]]:
        """The last order of those that still wait; with new ones among them the list rule too."""
        index_of = {item.id: index for index, item in enumerate(items)}
        known = [index_of.pop(name) for name in self._order if name in index_of]
        if not index_of:
            return (known,)
        return (list_rule(items, self._objective), _merged(known, index_of.values(), items))


def _narrowed(task: Task, kind: str) -> Task:
    return replace(task, kinds=(kind,), speeds=())


def _merged(known: Sequence[int], new: Iterable[int], items: Sequence[Item]) -> Sequence[int]:
    """Each new one before the first that is shorter."""
    coming = sorted(new, key=lambda index: -items[index].seconds)
    merged: list[int] = []
    for index in known:
        while coming and items[coming[0]].seconds > items[index].seconds:
            merged.append(coming.pop(0))
        merged.append(index)
    return [*merged, *coming]
