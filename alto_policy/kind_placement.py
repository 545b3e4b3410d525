"""Placement where GPUs are of several kinds: which waiting task starts next, and on which kind.

A plan is an order here too. Each task in its turn takes the kind on which it ends first, and waits
for it if that is sooner than on a kind that is free now.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.frozen import quick
from alto_policy.placement import Item, Objective, list_rule, search

__all__ = ["Lanes", "OnKinds", "Slot", "improve_on_kinds", "schedule_on_kinds"]

Lanes = Sequence[Sequence[float]]  # of each kind the seconds until each GPU is free, soonest first


@dataclass(frozen=True, slots=True)
class OnKinds:
    """Seconds that a task takes on kinds by their number; those of several kinds together if it is
    wider than each."""

    seconds: tuple[tuple[int, float], ...]
    together: float | None = None


@quick
@dataclass(frozen=True, slots=True)
class Slot:
    """When a task starts, on which kind, or on several, and when it ends."""

    start: float
    kind: int | None
    end: float


def schedule_on_kinds(
    order: Sequence[int], items: Sequence[Item], times: Sequence[OnKinds], lanes: Lanes
) -> list[Slot]:
    """Of the GPUs that are free by its start a task takes those that are free the latest: others
    may still start before it."""
    left = [list(lane) for lane in lanes]
    slots = [Slot(0.0, None, 0.0)] * len(items)
    for index in order:
        width, on = items[index].width, times[index]
        slots[index] = slot = _first_end(width, on, left)
        if slot.kind is not None:
            _occupy(left[slot.kind], width, slot)
            continue
        for kind, _ in on.seconds:
            taken = min(width, bisect_right(left[kind], slot.start))
            _occupy(left[kind], taken, slot)
            width -= taken
    return slots


def _first_end(width: int, on: OnKinds, left: Lanes) -> Slot:
    """On the first of equal kinds."""
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

    alone = [_first_end(item.width, on, lanes).end for item, on in zip(items, times, strict=True)]
    plan = search(
        ends,
        hints or (list_rule(items, objective),),
        objective=objective,
        nodes=nodes,
        target=max(alone) if objective is Objective.MAKESPAN else 0.0,
    )
    return plan.order, known[plan.order]


def _occupy(lane: list[float], width: int, slot: Slot) -> None:
    free = bisect_right(lane, slot.start)
    del lane[free - width : free]
    place = bisect_left(lane, slot.end)
    lane[place:place] = [slot.end] * width
