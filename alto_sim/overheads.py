"""What an executor spends beside steady passes and evaluations."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from alto_policy.types import Job, Task
from alto_sim.step_time import tokens_of

__all__ = ["NO_OVERHEADS", "FirstTimes", "Overheads", "size_class"]

_LEAST_CLASS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Seconds in which nobody trains."""

    launch: float  # to give a job its place
    first_pass: float  # more, where a pass is the first of its size: compiled, recorded
    first_report: float  # more, of a job: memory for its best adapter

    def __post_init__(self) -> None:
        if min(getattr(self, field.name) for field in fields(self)) < 0:
            raise ValueError(f"seconds must not be negative, got {self}")


NO_OVERHEADS = Overheads(launch=0.0, first_pass=0.0, first_report=0.0)


def size_class(tokens: float) -> int:
    """Work of one class is as good as of one size: a doubling, with no class below 512 tokens."""
    return max(_LEAST_CLASS, math.ceil(math.log2(max(1.0, tokens))))


class FirstTimes:
    """Which sizes of passes one GPU of an executor has met."""

    def __init__(self, overheads: Overheads, task: Task) -> None:
        self._overheads = overheads
        self._task = task
        self._passes: set[int] = set()

    def of_pass(self, jobs: Iterable[Job]) -> float:
        """Seconds that the next pass of the jobs takes more."""
        if self._overheads.first_pass == 0 or self._size(jobs) in self._passes:
            return 0.0
        return self._overheads.first_pass

    def passed(self, jobs: Iterable[Job]) -> None:
        """The jobs have made a pass."""
        if self._overheads.first_pass:
            self._passes.add(self._size(jobs))

    def _size(self, jobs: Iterable[Job]) -> int:
        return size_class(sum(tokens_of(job, self._task) for job in jobs))
