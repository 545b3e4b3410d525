"""Stays of jobs laid out in lanes: one for each slot of a GPU."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from alto_policy.types import GpuId, Task
from alto_runs.outcomes.history import JobHistory, Residency, RunHistory

__all__ = ["Slot", "assign_slots"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A job's stay on a GPU, in the lowest lane that was free when it came."""

    job: JobHistory
    stay: Residency
    lane: int


def assign_slots(history: RunHistory) -> dict[GpuId, list[Slot]]:
    """Slots of each GPU, in the order of their starts; a gang of one job is on all GPUs it has."""
    stays = [
        (stay, job)
        for task in history.tasks
        for job in history.of_task(task)
        for own in job.residencies
        for stay in _on_all(own, task, history)
    ]
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


def _on_all(stay: Residency, task: Task, history: RunHistory) -> Iterator[Residency]:
    """The stay, and on the task's other GPUs the same one if no other job could be there."""
    if task.num_gpus == 1 or len(task.jobs) > 1:
        yield stay
        return
    for span in history.spans.get(task.id, ()):
        if span.start <= stay.start and stay.end <= span.end and stay.gpu in span.gpus:
            yield from (replace(stay, gpu=gpu) for gpu in span.gpus)
            return
    yield stay
