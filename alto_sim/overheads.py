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
    leave: float  # to keep what a job has come to
    first_pass: float  # more, where a pass is the first of its size: compiled, recorded
    first_evaluation: float  # more, of an executor: compiled
    first_round: float  # more, where so many jobs are evaluated together for the first time
    first_report: float  # more, of a job: memory for its best adapter

    def __post_init__(self) -> None:
        if min(getattr(self, field.name) for field in fields(self)) < 0:
            raise ValueError(f"seconds must not be negative, got {self}")


NO_OVERHEADS = Overheads(
    launch=0.0,
    leave=0.0,
    first_pass=0.0,
    first_evaluation=0.0,
    first_round=0.0,
    first_report=0.0,
)


def size_class(tokens: float) -> int:
    """Work of one class is as good as of one size: a doubling, with no class below 512 tokens."""
    return max(_LEAST_CLASS, math.ceil(math.log2(max(1.0, tokens))))


class FirstTimes:
    """What passes of new sizes take more on one GPU of an executor.

    The first size is paid for at once. A smaller one does as well in what was made for a larger
    one, at that one's time, until this has cost as much as its own would.
    """

    def __init__(self, whole: float, task: Task) -> None:
        """A size costs `whole` seconds."""
        self._whole = whole
        self._task = task
        self._seconds: dict[int, float] = {}  # of a pass, by the class of its size
        self._paid: dict[int, float] = {}

    def of_passes(self, jobs: Iterable[Job], seconds: float, count: int) -> float:
        """Seconds that so many passes of the jobs take more than their own `seconds` each."""
        size = self._size(jobs)
        left = self._whole - self._paid.get(size, 0.0)
        larger = [known for other, known in self._seconds.items() if other > size]
        if left <= 0 or not larger:
            return max(0.0, left)
        return min(left, count * max(0.0, min(larger) - seconds))

    def passed(self, jobs: Iterable[Job], seconds: float, more: float) -> None:
        """The jobs have made passes of so many seconds each, and `more` of all of them."""
        size = self._size(jobs)
        self._paid[size] = self._paid.get(size, 0.0) + more
        if self._paid[size] >= self._whole:
            self._seconds[size] = seconds

    def _size(self, jobs: Iterable[Job]) -> int:
        return size_class(sum(tokens_of(job, self._task) for job in jobs))
