"""Stays of jobs laid out in lanes: one for each slot of a GPU."""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from alto_policy.types import GpuId
from alto_runs.history import JobHistory, Residency

__all__ = ["Slot", "assign_slots"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A job's stay on a GPU, in the lowest lane that was free when it came."""

    job: JobHistory
    stay: Residency
    lane: int


def assign_slots(jobs: Iterable[JobHistory]) -> dict[GpuId, list[Slot]]:
    """Slots of each GPU, in the order of their starts."""
    stays = [(stay, job) for job in jobs for stay in job.residencies]
    stays.sort(key=lambda pair: (pair[0].gpu, pair[0].start))
    by_gpu: dict[GpuId, list[Slot]] = {}
    free: list[int] = []
    taken: list[tuple[float, int]] = []
    for stay, job in stays:
        if stay.gpu not in by_gpu:
            by_gpu[stay.gpu], free, taken = [], [], []
        while taken and taken[0][0] <= stay.start:
            heappush(free, heappop(taken)[1])
        lane = heappop(free) if free else len(taken)
        heappush(taken, (stay.end, lane))
        by_gpu[stay.gpu].append(Slot(job, stay, lane))
    return by_gpu
