"""How long a cluster of several kinds of GPU needs for tasks that may be cut as one likes."""

import math
from collections.abc import Callable, Mapping, Sequence

from alto_policy.kinds.max_min import Claim, Way, level_of, max_min
from alto_policy.kinds.shares import choices
from alto_policy.types import Task

__all__ = ["drained_seconds"]


def drained_seconds(
    tasks: Sequence[Task], seconds: Callable[[Task], float], counts: Mapping[str, int]
) -> float:
    """The least, each part of a task on the kind that suits all best; those that no kind holds take
    none. On one kind it is their GPU-seconds over the GPUs. `seconds` are those at a speed of 1."""
    ways = [_ways(task, seconds(task), counts) for task in tasks if task.kinds]
    # One after another, each on all GPUs at once: as long at least, and as many times at most.
    whole = math.fsum(1 / sum(1 / max(way.takes) for way in each) for each in ways)
    part = whole / (2 * len(counts))
    claims = [
        Claim(tuple([Way(1.0, tuple(n / part for n in way.takes)) for way in each]))
        for each in ways
    ]
    done = max_min(claims, [1.0] * len(counts))  # of each task in that time
    return part / min(level_of(*each) for each in zip(claims, done, strict=True))


def _ways(task: Task, seconds: float, counts: Mapping[str, int]) -> list[Way]:
    """To do all of it: seconds of each whole kind."""
    speeds = dict(zip(task.kinds or (), task.speeds, strict=True))
    return [
        Way(1.0, tuple([gang.get(kind, 0) * seconds / speed / counts[kind] for kind in counts]))
        for speed, gang in choices(task.num_gpus, speeds, counts, counts).values()
    ]
