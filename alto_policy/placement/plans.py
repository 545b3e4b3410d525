"""Which waiting task starts next on a shared cluster (paper, section 4.2: rigid parallel tasks).

A plan is an order. It is carried out as an order too, never as a table of start times: durations
are mispredicted, and an order degrades by a few per cent where a table falls apart. All searches
are bounded by the places they try, not by seconds, so that the same events give the same plan.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import heapify, heappop, heappush

from alto_policy.frozen import quick
from alto_policy.types import TaskId

__all__ = [
    "Item",
    "Objective",
    "Plan",
    "Pool",
    "bound",
    "improve",
    "list_rule",
    "makespan",
    "schedule",
    "search",
    "starts_now",
]


class Objective(StrEnum):
    MAKESPAN = "makespan"
    MEAN_COMPLETION = "mean-completion"


@quick
@dataclass(frozen=True, slots=True)
class Item:
    """A task as the planner sees it: so many GPUs at once, for so many seconds."""

    id: TaskId
    width: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Pool:
    """GPUs that are free now, and those that will be: seconds from now, and how many."""

    free: int
    releases: tuple[tuple[float, int], ...] = ()

    @property
    def gpus(self) -> int:
        return self.free + sum(width for _, width in self.releases)


@dataclass(frozen=True, slots=True)
class Plan:
    """Indices of the items in the order in which they are offered GPUs, and what comes of it."""

    order: tuple[int, ...]
    cost: float


def bound(items: Sequence[Item], pool: Pool) -> float:
    """No schedule ends earlier: area, longest task, and tasks too wide to run side by side."""
    if not items:
        return 0.0
    area = _filled(math.fsum(item.width * item.seconds for item in items), pool)
    earliest = {width: _earliest(width, pool) for width in {item.width for item in items}}
    longest = max(earliest[item.width] + item.seconds for item in items)
    gpus = pool.gpus
    wide = [item for item in items if 2 * item.width > gpus]
    apart = min((earliest[item.width] for item in wide), default=0.0)
    return max(area, longest, apart + math.fsum(item.seconds for item in wide))


def list_rule(items: Sequence[Item], objective: Objective) -> tuple[int, ...]:
    """Longest first, the wider of equals; for the mean completion the smallest area first."""
    indices = range(len(items))
    if objective is Objective.MAKESPAN:
        return tuple(sorted(indices, key=lambda i: (-items[i].seconds, -items[i].width)))
    return tuple(sorted(indices, key=lambda i: (items[i].seconds * items[i].width, items[i].width)))


def schedule(order: Sequence[int], items: Sequence[Item], pool: Pool) -> list[float]:
    """Start of each item: whenever GPUs come free, the first items of the order that fit start.

    Raises ValueError for an item wider than the pool.
    """
    waiting = _by_width(order, items, pool)
    ends = list(pool.releases)
    heapify(ends)
    starts = [0.0] * len(items)
    now, free, left = 0.0, pool.free, len(order)
    while left:
        while free:
            first, width = len(order), 0
            for of_width, ranks in waiting:
                if of_width > free:
                    break
                if ranks and ranks[-1] < first:
                    first, width, fitting = ranks[-1], of_width, ranks
            if not width:
                break
            index = order[fitting.pop()]
            free -= width
            starts[index] = now
            heappush(ends, (now + items[index].seconds, width))
            left -= 1
        now, width = heappop(ends)
        free += width
        while ends and ends[0][0] == now:
            free += heappop(ends)[1]
    return starts


def makespan(order: Sequence[int], items: Sequence[Item], pool: Pool) -> float:
    starts = schedule(order, items, pool)
    return max((start + item.seconds for start, item in zip(starts, items, strict=True)), default=0)


def improve(
    items: Sequence[Item],
    pool: Pool,
    *,
    objective: Objective = Objective.MAKESPAN,
    nodes: int = 100_000,
    hints: Sequence[Sequence[int]] = (),
) -> Plan:
    """The best of the hints, or the list rule without any, improved by moves within the order.

    A node is the placing of one item: a schedule of n items costs n. Stops at the bound.
    """
    target = bound(items, pool) if objective is Objective.MAKESPAN else 0.0

    def ends(order: Sequence[int]) -> list[float]:
        starts = schedule(order, items, pool)
        return [start + item.seconds for start, item in zip(starts, items, strict=True)]

    candidates = hints or (list_rule(items, objective),)
    return search(ends, candidates, objective=objective, nodes=nodes, target=target)


def search(
    ends: Callable[[Sequence[int]], Sequence[float]],
    candidates: Sequence[Sequence[int]],
    *,
    objective: Objective,
    nodes: int,
    target: float,
) -> Plan:
    """Move an item of the best candidate, or now and then any two, to another place in the order.

    `ends` tells what comes of an order. Equal plans are accepted: the landscape is made of
    plateaus.
    """

    def plan(order: tuple[int, ...]) -> Plan:
        found = ends(order)
        if objective is Objective.MEAN_COMPLETION:
            return Plan(order, math.fsum(found) / max(1, len(found)))
        return Plan(order, max(found, default=0.0))

    best = current = min((plan(tuple(order)) for order in candidates), key=lambda one: one.cost)
    count = len(current.order)
    if count <= 1:
        return best
    target *= 1 + 1e-9
    places = _Places(count)
    while nodes >= count and best.cost > target:
        nodes -= count
        order = list(current.order)
        source, destination = places.next(), places.next()
        if places.next() % 2:
            order[source], order[destination] = order[destination], order[source]
        else:
            order.insert(destination, order.pop(source))
        found = plan(tuple(order))
        if found.cost <= current.cost:
            current = found
            if found.cost < best.cost:
                best = found
    return best


def starts_now(
    order: Sequence[int], items: Sequence[Item], pool: Pool, *, reserve: bool = False
) -> list[int]:
    """The items that start at once; with `reserve` none of them delays the first that must wait.

    Its GPUs are kept from the moment at which enough of them are expected to be free (Lifka 1995).
    """
    free, spare, shadow = pool.free, pool.gpus, None
    started: list[int] = []
    for index in order:
        width, seconds = items[index].width, items[index].seconds
        if width > free:
            if reserve and shadow is None:
                running = [(items[i].seconds, items[i].width) for i in started]
                later = Pool(free, (*pool.releases, *running))
                shadow = _earliest(width, later)
                spare = _free_at(shadow, later) - width
            continue
        if shadow is not None and seconds > shadow:
            if width > spare:
                continue
            spare -= width
        free -= width
        started.append(index)
    return started


@dataclass(slots=True)
class _Places:
    """A fixed sequence of numbers below a count: Knuth's MMIX generator, always from the start."""

    count: int
    state: int = 1

    def next(self) -> int:
        self.state = (6364136223846793005 * self.state + 1442695040888963407) % 2**64
        return (self.state >> 33) % self.count


def _by_width(
    order: Sequence[int], items: Sequence[Item], pool: Pool
) -> list[tuple[int, list[int]]]:
    """Places in the order of each width, the first at the end of its list; narrow ones first."""
    waiting: dict[int, list[int]] = {}
    for rank in range(len(order) - 1, -1, -1):
        waiting.setdefault(items[order[rank]].width, []).append(rank)
    if (widest := max(waiting, default=0)) > pool.gpus:
        raise ValueError(f"width must be at most {pool.gpus}, got {widest}")
    return sorted(waiting.items())


def _earliest(width: int, pool: Pool) -> float:
    """When that many GPUs are free, if nothing is started before."""
    free = pool.free
    if free >= width:
        return 0.0
    for seconds, released in sorted(pool.releases):
        free += released
        if free >= width:
            return seconds
    raise ValueError(f"width must be at most {pool.gpus}, got {width}")


def _filled(gpu_seconds: float, pool: Pool) -> float:
    """When that much work is done, were it poured over all GPUs from their releases on."""
    free, since = pool.free, 0.0
    for at, width in sorted(pool.releases):
        if gpu_seconds <= free * (at - since):
            break
        gpu_seconds -= free * (at - since)
        free, since = free + width, at
    return since + gpu_seconds / free


def _free_at(seconds: float, pool: Pool) -> int:
    return pool.free + sum(width for at, width in pool.releases if at <= seconds)
