"""Widths of tasks that could take several: greedy widening.

All begin narrow; the task that ends last gets the next width while the makespan of the list rule
falls, or while its own time does and the area bound allows.
"""

import math
from collections.abc import Callable, Sequence

from alto_policy.placement.on_kinds import OnKinds, schedule_on_kinds
from alto_policy.placement.plans import Item, Objective, Pool, list_rule, makespan
from alto_policy.types import TaskId

__all__ = ["Wide", "mold", "mold_on_kinds"]

Wide = tuple[int, OnKinds]  # GPUs, and the seconds on them


def mold(
    seconds: Sequence[Callable[[int], float]], widths: Sequence[int], gpus: int
) -> list[tuple[int, float]]:
    """A width and its seconds for each task."""
    allowed = sorted({width for width in widths if 1 <= width <= gpus})
    if not allowed:
        raise ValueError(f"widths must hold one from 1 to {gpus}, got {list(widths)}")

    def items(chosen: Sequence[int], times: Sequence[float]) -> list[Item]:
        return [Item(TaskId(""), allowed[c], t) for c, t in zip(chosen, times, strict=True)]

    def area(chosen: Sequence[int], times: Sequence[float]) -> float:
        return math.fsum(item.width * item.seconds for item in items(chosen, times)) / gpus

    def ends(chosen: Sequence[int], times: Sequence[float]) -> float:
        found = items(chosen, times)
        return makespan(list_rule(found, Objective.MAKESPAN), found, Pool(gpus))

    kept = _widened(
        lambda task, choice: seconds[task](allowed[choice]),
        (len(seconds), len(allowed)),
        area,
        ends,
    )
    return [(allowed[choice], time) for choice, time in kept]


def mold_on_kinds(
    tasks: Sequence[Callable[[int], Wide]], widths: Sequence[int], counts: Sequence[int]
) -> list[int]:
    """A width for each task on so many GPUs of each kind. Tasks tell what they make of a width:
    they may need more, or have no use for it."""
    allowed = sorted(set(widths))
    made = [[task(width) for width in allowed] for task in tasks]
    fastest = [[_fastest(on) for _, on in each] for each in made]

    def items(chosen: Sequence[int], times: Sequence[float]) -> list[Item]:
        rows = zip(made, chosen, times, strict=True)
        return [Item(TaskId(""), each[choice][0], time) for each, choice, time in rows]

    def area(chosen: Sequence[int], times: Sequence[float]) -> float:
        """Each kind as fast as it is for the task that it suits best."""
        best = [0.0] * len(counts)
        for each, choice, time in zip(made, chosen, times, strict=True):
            on = each[choice][1]
            for kind, own in on.seconds:
                best[kind] = max(best[kind], time / (own if on.together is None else time))
        work = math.fsum(item.width * item.seconds for item in items(chosen, times))
        return work / math.fsum(n * speed for n, speed in zip(counts, best, strict=True))

    def ends(chosen: Sequence[int], times: Sequence[float]) -> float:
        found = items(chosen, times)
        on = [each[choice][1] for each, choice in zip(made, chosen, strict=True)]
        lanes = [[0.0] * count for count in counts]
        slots = schedule_on_kinds(list_rule(found, Objective.MAKESPAN), found, on, lanes)
        return max(slot.end for slot in slots)

    kept = _widened(
        lambda task, choice: fastest[task][choice], (len(tasks), len(allowed)), area, ends
    )
    return [each[choice][0] for each, (choice, _) in zip(made, kept, strict=True)]


def _widened(
    time_of: Callable[[int, int], float],
    counts: tuple[int, int],
    area: Callable[[Sequence[int], Sequence[float]], float],
    ends: Callable[[Sequence[int], Sequence[float]], float],
) -> list[tuple[int, float]]:
    """Of each of so many tasks one of so many widths, by its number, and its time."""
    num_tasks, num_widths = counts
    chosen = [0] * num_tasks
    times = [time_of(task, 0) for task in range(num_tasks)]
    best = ends(chosen, times) if chosen else 0.0
    kept = list(zip(chosen, times, strict=True))
    while wider := [task for task in range(num_tasks) if chosen[task] + 1 < num_widths]:
        last = max(wider, key=lambda task: (times[task], -chosen[task]))
        chosen[last] += 1
        times[last] = time_of(last, chosen[last])
        if area(chosen, times) >= best:
            break
        found = ends(chosen, times)
        if found < best:
            best, kept = found, list(zip(chosen, times, strict=True))
    return kept


def _fastest(on: OnKinds) -> float:
    return min(seconds for _, seconds in on.seconds) if on.together is None else on.together
