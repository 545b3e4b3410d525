"""Which recorded searches are of one task: same name and data, another seed or another policy.

The name of a run may end with its policy, its seed and the number of its records
(`ropes-fifo`, `qasc-question-generation-1000-alto-seed1`): none of these makes another task, but
another amount of data does, whatever its name says.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev
from typing import TypeVar

from alto_policy.types import Task

__all__ = [
    "Spread",
    "by_task",
    "is_repeated",
    "is_same_task",
    "mean_of_known",
    "name_of",
    "seed_of",
    "spread_of",
    "told_count",
    "told_seeds",
]

One = TypeVar("One")
_ENDINGS = re.compile(r"(-\d+)?(-(alto(-plus)?|fifo|sequential|seed)\d*)+$")

Spread = tuple[float, float | None]
"""A mean over seeds, and the standard deviation where there are two seeds or more."""


def name_of(task: Task) -> str:
    """Of what is searched."""
    return _ENDINGS.sub("", task.id)


def seed_of(task: Task) -> int:
    """Of the search: the least of its jobs'."""
    return min(job.hyperparameters.seed for job in task.jobs)


def is_same_task(one: Task, other: Task) -> bool:
    names = {name_of(each).replace("_", "-") for each in (one, other)}
    return len(names) == 1 and _may_be_equal(_samples(one), _samples(other))


def is_repeated(one: Task, other: Task) -> bool:
    """Whether both train some configuration on the same data, from the same seed."""
    configurations = {job.hyperparameters for job in one.jobs}
    return is_same_task(one, other) and any(
        job.hyperparameters in configurations for job in other.jobs
    )


def by_task(searches: Iterable[One], task: Callable[[One], Task]) -> list[tuple[One, ...]]:
    """Searches of one task together, in order of their seeds; tasks in the order of their first."""
    groups: list[list[One]] = []
    for one in searches:
        own = next((group for group in groups if is_same_task(task(group[0]), task(one))), None)
        if own is None:
            groups.append([one])
        else:
            own.append(one)
    return [tuple(sorted(group, key=lambda one: seed_of(task(one)))) for group in groups]


def spread_of(values: Sequence[float]) -> Spread:
    return fmean(values), stdev(values) if len(values) > 1 else None


def told_count(searches: int, tasks: int) -> str:
    """For a caption of means over them."""
    return f"{tasks} tasks" if searches == tasks else f"{searches} searches of {tasks} tasks"


def mean_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def told_seeds(groups: Iterable[tuple[str, Sequence[int]]]) -> str:
    """For a caption: names of tasks with the seeds of their jobs."""
    several = [(name, seeds) for name, seeds in groups if len(seeds) > 1]
    if not several:
        return "One seed a job, no error bars."
    told = "; ".join(f"{name}: {', '.join(map(str, seeds))}" for name, seeds in several)
    return (
        f"Seeds of {told}; one of every other task. Over seeds: means, and one standard deviation "
        "where one is given."
    )


def _samples(task: Task) -> tuple[int, int]:
    """More than the first and at most the second are trained: steps are rounded up."""
    steps = [(job.samples(job.steps), job.hyperparameters.samples_per_step) for job in task.jobs]
    return max(samples - size for samples, size in steps), min(samples for samples, _ in steps)


def _may_be_equal(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])
