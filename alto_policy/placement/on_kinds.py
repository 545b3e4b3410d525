"""Placement where GPUs are of several kinds: which waiting task starts next, and on which kind.

A plan is an order here too. Each task in its turn takes the kind on which it ends first, and waits
for it if that is sooner than on a kind that is free now. What is free until then is for those whom
it lets end sooner than planned: a plan reserves for all that are in it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_policy.frozen import quick
from alto_policy.placement.plans import Item, Objective, list_rule, search
from alto_policy.types import Task

__all__ = [
    "Lanes",
    "OnKinds",
    "Slot",
    "ends_first",
    "improve_on_kinds",
    "on_each",
    "schedule_on_kinds",
    "starts_on_kinds",
    "where_it_fits",
]

Lanes = Sequence[Sequence[float]]  # of each kind the seconds until each GPU is free, soonest first


@dataclass(frozen=True, slots=True)
class OnKinds:
    """Seconds that a task takes on kinds by their number; those of several kinds together if it is
    wider than each."""

    seconds: tuple[tuple[int, float], ...]
    together: float | None = None

    def only(self, kind: int | None) -> "OnKinds":
        """On that kind alone; None: all that there are."""
        if kind is None:
            return self
        return OnKinds(tuple([each for each in self.seconds if each[0] == kind]))


@quick
@dataclass(frozen=True, slots=True)
class Slot:
    """When a task starts, on which kind, or on several, and when it ends."""

    start: float
    kind: int | None
    end: float


def on_each(task: Task, seconds: float, counts: Mapping[str, int]) -> OnKinds:
    """Of a task that takes so many seconds at a speed of 1, on kinds of so many GPUs each."""
    kinds = tuple(counts) if task.kinds is None else task.kinds
    speeds = task.speeds or (1.0,) * len(kinds)
    on = {kind: seconds / speed for kind, speed in zip(kinds, speeds, strict=True)}
    number = {kind: place for place, kind in enumerate(counts)}
    if alone := [kind for kind in kinds if counts[kind] >= task.num_gpus]:
        return OnKinds(tuple([(number[kind], on[kind]) for kind in alone]))
    return OnKinds(tuple([(number[kind], on[kind]) for kind in kinds]), max(on.values()))


def where_it_fits(width: int, on: OnKinds, lanes: Lanes) -> OnKinds | None:
    """On kinds of which enough GPUs are there at all; None: on none of them."""
    if on.together is not None:
        return on if sum([len(lanes[kind]) for kind, _ in on.seconds]) >= width else None
    fitting = tuple([each for each in on.seconds if len(lanes[each[0]]) >= width])
    return OnKinds(fitting) if fitting else None


def schedule_on_kinds(
    order: Sequence[int], items: Sequence[Item], times: Sequence[OnKinds], lanes: Lanes
) -> list[Slot]:
    """Of the GPUs that are free by its start a task takes those that are free the latest: others
    may still start before it."""
    left = [list(lane) for lane in lanes]
    slots = [Slot(0.0, None, 0.0)] * len(items)
    for index in order:
        width, on = items[index].width, times[index]
        slots[index] = slot = ends_first(width, on, left)
        if slot.kind is not None:
            _occupy(left[slot.kind], width, slot)
            continue
        for kind, taken in _parts(width, on, slot, left):
            _occupy(left[kind], taken, slot)
    return slots


def starts_on_kinds(
    order: Sequence[int],
    items: Sequence[Item],
    times: Sequence[OnKinds],
    lanes: Lanes,
    slots: Sequence[Slot],
) -> list[tuple[int, int | None]]:
    """Who starts now, and on which kind, or on several: as planned by these slots; then whoever is
    done before the GPUs are used that are free until then, and not later than planned."""
    started = [(index, slots[index].kind) for index in order if slots[index].start == 0.0]
    gaps = _gaps(order, items, times, lanes, slots)
    for index in order:
        if not any(gaps):
            break
        width, on, slot = items[index].width, times[index], slots[index]
        if slot.start > 0.0 and on.together is None:
            for seconds, kind in sorted([(seconds, kind) for kind, seconds in on.seconds]):
                first = bisect_left(gaps[kind], seconds)
                if seconds <= slot.end and len(gaps[kind]) - first >= width:
                    del gaps[kind][first : first + width]
                    started.append((index, kind))
                    break
    return started


def ends_first(width: int, on: OnKinds, left: Lanes) -> Slot:
    """When that many GPUs of what is left are its own; on the first of equal kinds."""
    if on.together is not None:
        start = sorted(each for kind, _ in on.seconds for each in left[kind])[width - 1]
        return Slot(start, None, start + on.together)
    first = math.inf
    for kind, seconds in on.seconds:
        start = left[kind][width - 1]
        if start + seconds < first:
            first, begun, chosen = start + seconds, start, kind
    return Slot(begun, chosen, first)


def improve_on_kinds(
    items: Sequence[Item],
    times: Sequence[OnKinds],
    lanes: Lanes,
    *,
    objective: Objective,
    nodes: int,
    hints: Sequence[Sequence[int]],
) -> tuple[tuple[int, ...], list[Slot]]:
    """The best order that is found from these, as `improve` does it; and what comes of it."""

    known: dict[Sequence[int], list[Slot]] = {}  # no more slots than nodes

    def ends(order: Sequence[int]) -> list[float]:
        known[order] = slots = schedule_on_kinds(order, items, times, lanes)
        return [slot.end for slot in slots]

    alone = [ends_first(item.width, on, lanes).end for item, on in zip(items, times, strict=True)]
    plan = search(
        ends,
        hints or (list_rule(items, objective),),
        objective=objective,
        nodes=nodes,
        target=max(alone) if objective is Objective.MAKESPAN else 0.0,
    )
    return plan.order, known[plan.order]


def _gaps(
    order: Sequence[int],
    items: Sequence[Item],
    times: Sequence[OnKinds],
    lanes: Lanes,
    slots: Sequence[Slot],
) -> list[list[float]]:
    """Of each kind, until when GPUs are free that are so now and used later, in increasing order:
    whoever could be done sooner on one that is never used is there."""
    left = [list(lane) for lane in lanes]
    gaps: list[list[float]] = [[] for _ in lanes]
    free = [bisect_right(lane, 0.0) for lane in lanes]
    for index in order:
        if not any(free):
            break
        slot = slots[index]
        for kind, taken in _parts(items[index].width, times[index], slot, left):
            others = bisect_right(left[kind], slot.start) - free[kind]  # that are free by its start
            if (first_used := taken - others) > 0:
                free[kind] -= first_used
                if slot.start > 0.0:
                    gaps[kind] += [slot.start] * first_used
            _occupy(left[kind], taken, slot)
    return [sorted(ends) for ends in gaps]


def _parts(width: int, on: OnKinds, slot: Slot, left: Lanes) -> Sequence[tuple[int, int]]:
    """How many GPUs of which kinds it takes of those that are left."""
    if slot.kind is not None:
        return ((slot.kind, width),)
    parts = []
    for kind, _ in on.seconds:
        parts.append((kind, min(width, bisect_right(left[kind], slot.start))))
        width -= parts[-1][1]
    return parts


def _occupy(lane: list[float], width: int, slot: Slot) -> None:
    free = bisect_right(lane, slot.start)
    del lane[free - width : free]
    place = bisect_left(lane, slot.end)
    lane[place:place] = [slot.end] * width
