"""How a shared cluster served its tasks: waiting, completion, fairness, and use of its GPUs."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from alto_policy.frozen import quick
from alto_policy.types import GpuId, Task, TaskId
from alto_runs.outcomes.history import JobHistory, Outage, Outcome, Residency, RunHistory

__all__ = [
    "ScheduleMetrics",
    "TaskTimes",
    "Usage",
    "busy_seconds",
    "jain",
    "measure_schedule",
    "measure_usage",
    "occupied",
    "percentile",
    "task_times",
    "times_of",
]

_ENDED = (Outcome.FINISHED, Outcome.STOPPED, Outcome.FAILED)


@quick
@dataclass(frozen=True, slots=True)
class TaskTimes:
    """Seconds of the log; None for what has not happened."""

    task: TaskId
    tenant: str
    num_gpus: int
    arrival: float
    start: float | None  # its backbone was loaded for the first time
    end: float | None  # its last job was over

    @property
    def completion(self) -> float | None:
        return None if self.end is None else self.end - self.arrival

    @property
    def queueing(self) -> float | None:
        return None if self.start is None else self.start - self.arrival

    @property
    def slowdown(self) -> float | None:
        """Completion over what it took once started; 1 is no waiting."""
        if self.start is None or self.end is None or self.end <= self.start:
            return None
        return (self.end - self.arrival) / (self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleMetrics:
    """Seconds over the tasks that have ended; None where none has.

    Fairness is Jain's index over the tenants' mean slowdowns, or the tasks' where there is one
    tenant: 1 if all are served alike, 1/n if one of n bears all the waiting.
    """

    tasks: int
    tasks_ended: int
    completion_mean: float | None
    completion_median: float | None
    completion_p90: float | None
    completion_p99: float | None
    queueing_mean: float | None
    queueing_p99: float | None
    slowdown_mean: float | None
    fairness: float | None
    lost_gpu_seconds: float  # of nodes that were down


@dataclass(frozen=True, slots=True)
class Usage:
    """Steps over time: `count[i]` holds from `times[i]` to `times[i + 1]`."""

    times: NDArray[np.float64]
    allocated: NDArray[np.int64]  # GPUs that hold a backbone
    busy: NDArray[np.int64]  # of these, with a job resident
    adapters: NDArray[np.int64]  # jobs resident on all GPUs

    def mean(self, counts: NDArray[np.int64]) -> float:
        """Over the time from the first to the last step."""
        widths = np.diff(self.times)
        whole = float(widths.sum())
        return float((counts[:-1] * widths).sum()) / whole if whole > 0 else 0.0


def task_times(history: RunHistory) -> tuple[TaskTimes, ...]:
    return tuple(times_of(task, jobs, history) for task, jobs in history.by_task())


def times_of(task: Task, jobs: Iterable[JobHistory], history: RunHistory) -> TaskTimes:
    spans, arrival = history.spans.get(task.id), history.arrivals[task.id]
    start = spans[0].start if spans else None
    return TaskTimes(task.id, task.tenant, task.num_gpus, arrival, start, _end(arrival, jobs))


def measure_schedule(times: Iterable[TaskTimes], outages: Iterable[Outage] = ()) -> ScheduleMetrics:
    completions: list[float] = []
    waits: list[float] = []
    by_tenant: dict[str, list[float]] = {}
    count = 0
    for each in times:
        count += 1
        if each.end is not None:
            completions.append(each.end - each.arrival)
        if each.start is not None:
            waits.append(each.start - each.arrival)
        if (slowdown := each.slowdown) is not None:
            by_tenant.setdefault(each.tenant, []).append(slowdown)
    slowdowns = [slowdown for of_tenant in by_tenant.values() for slowdown in of_tenant]
    return ScheduleMetrics(
        tasks=count,
        tasks_ended=len(completions),
        completion_mean=fmean(completions) if completions else None,
        completion_median=percentile(completions, 50),
        completion_p90=percentile(completions, 90),
        completion_p99=percentile(completions, 99),
        queueing_mean=fmean(waits) if waits else None,
        queueing_p99=percentile(waits, 99),
        slowdown_mean=fmean(slowdowns) if slowdowns else None,
        fairness=jain(
            [fmean(of_tenant) for of_tenant in by_tenant.values()]
            if len(by_tenant) > 1
            else slowdowns
        ),
        lost_gpu_seconds=math.fsum((o.end - o.start) * len(o.gpus) for o in outages),
    )


def measure_usage(history: RunHistory) -> Usage:
    """Counts GPUs and jobs at every moment at which one of them changes."""
    stays = [stay for job in history.jobs.values() for stay in job.residencies]
    allocated = [e for s in history.executors for e in _edges(s.start, s.end, len(s.gpus))]
    adapters = [edge for stay in stays for edge in _edges(stay.start, stay.end)]
    busy = [
        edge
        for task, jobs in history.by_task()
        for start, end in occupied(_stays(jobs))
        for edge in _edges(start, end, _width(task))
    ]
    times = np.unique([0.0, history.end, *(at for at, _ in (*allocated, *adapters))])
    steps = (_steps(changes, times) for changes in (allocated, busy, adapters))
    return Usage(times, *steps)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Between the nearest two of the sorted values, as NumPy's default does."""
    return float(np.percentile(values, percent)) if values else None


def jain(values: Sequence[float]) -> float | None:
    """(sum x)^2 / (n sum x^2): Jain, Chiu and Hawe 1984."""
    squares = math.fsum(value * value for value in values)
    return math.fsum(values) ** 2 / (len(values) * squares) if squares else None


def _end(arrival: float, jobs: Iterable[JobHistory]) -> float | None:
    """None while a job may go on; a task that was given up at once ends as it arrives."""
    last = arrival
    for job in jobs:
        if job.outcome not in _ENDED:
            return None
        if job.residencies:
            last = max(last, job.residencies[-1].end)
    return last


def occupied(stays: Iterable[Residency]) -> Iterator[tuple[float, float]]:
    """The stretches in which a GPU has any job, GPU by GPU."""
    reached: dict[GpuId, tuple[float, float]] = {}
    for stay in sorted(stays, key=lambda stay: stay.start):
        start, end = reached.get(stay.gpu, (stay.start, stay.start))
        if stay.start > end:
            yield start, end
            start = stay.start
        reached[stay.gpu] = (start, max(end, stay.end))
    yield from reached.values()


def busy_seconds(task: Task, jobs: Sequence[JobHistory]) -> float:
    """Seconds in which a GPU of the task has a job, summed over its GPUs."""
    stays = _stays(jobs)
    if len(stays) == 1:
        return _width(task) * (stays[0].end - stays[0].start)
    return _width(task) * math.fsum(end - start for start, end in occupied(stays))


def _stays(jobs: Sequence[JobHistory]) -> Sequence[Residency]:
    if len(jobs) == 1:
        return jobs[0].residencies
    return [stay for job in jobs for stay in job.residencies]


def _width(task: Task) -> int:
    """GPUs that a job keeps busy where it stays: all that its task holds, if there is no other."""
    return task.num_gpus if len(task.jobs) == 1 else 1


def _edges(start: float, end: float, by: int = 1) -> tuple[tuple[float, int], tuple[float, int]]:
    return (start, by), (end, -by)


def _steps(changes: Sequence[tuple[float, int]], times: NDArray[np.float64]) -> NDArray[np.int64]:
    counts = np.zeros(len(times), dtype=np.int64)
    if changes:
        at, by = zip(*changes, strict=True)
        np.add.at(counts, np.searchsorted(times, np.array(at)), np.array(by))
    return np.cumsum(counts)
