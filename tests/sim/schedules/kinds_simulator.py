"""A third simulator of rigid jobs, for GPUs of several kinds: lists that are gone through whole."""

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from tests.sim.schedules.heap_simulator import HeapJob

__all__ = ["KindOfGpu", "schedule_on_kinds"]


@dataclass(frozen=True, slots=True)
class KindOfGpu:
    count: int
    speed: float


def schedule_on_kinds(
    jobs: Sequence[HeapJob], kinds: Sequence[KindOfGpu], priority: Callable[[HeapJob], float]
) -> dict[str, tuple[float, float]]:
    """Start and end of each job, on the first kind with room; on several only if it is wider than
    each. Arrivals come before ends of the same moment, and every one is a scheduling point."""
    free = [kind.count for kind in kinds]
    widest = max(free)
    waiting: list[tuple[float, int]] = []
    running: list[tuple[float, int, tuple[int, ...]]] = []  # end, a number, GPUs of each kind
    times: dict[str, tuple[float, float]] = {}
    arrived = 0
    while arrived < len(jobs) or running:
        if arrived < len(jobs) and (not running or jobs[arrived].submit <= running[0][0]):
            now = jobs[arrived].submit
            if jobs[arrived].width <= sum(kind.count for kind in kinds):
                insort(waiting, (priority(jobs[arrived]), arrived))
            arrived += 1
        else:
            now, _, held = heappop(running)
            free = [left + back for left, back in zip(free, held, strict=True)]
        for entry in list(waiting):
            if not any(free):
                break
            job = jobs[entry[1]]
            taken = _taken(job.width, free, widest)
            if taken is not None:
                waiting.remove(entry)
                free = [left - gone for left, gone in zip(free, taken, strict=True)]
                slowest = min(kind.speed for kind, n in zip(kinds, taken, strict=True) if n)
                end = now + job.duration / slowest
                times[job.name] = (now, end)
                heappush(running, (end, len(times), taken))
    return times


def _taken(width: int, free: Sequence[int], widest: int) -> tuple[int, ...] | None:
    """So many of each kind; None where the job must wait."""
    if width <= widest:
        for number, left in enumerate(free):
            if left >= width:
                return tuple(width if each == number else 0 for each in range(len(free)))
        return None
    if sum(free) < width:
        return None
    taken = []
    for left in free:
        taken.append(min(left, width))
        width -= taken[-1]
    return tuple(taken)
