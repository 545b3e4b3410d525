"""A second simulator of rigid jobs, written without a look at the first: arrays and two heaps."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

__all__ = ["HeapJob", "jobs_of", "schedule"]


@dataclass(frozen=True, slots=True)
class HeapJob:
    name: str
    submit: float
    duration: float
    width: int


def jobs_of(path: Path) -> list[HeapJob]:
    """Those that ran; an iteration without a duration takes a tenth of a second."""
    jobs = []
    with gzip.open(path, "rt") as file:
        for line in csv.DictReader(file):
            duration = float(line["duration_s"] or float(line["iterations"]) * 0.1)
            if duration > 0 and int(line["num_gpus"]) > 0:
                width = int(line["num_gpus"])
                jobs.append(HeapJob(line["job_id"], float(line["submit_s"]), duration, width))
    jobs.sort(key=lambda job: job.submit)
    origin = jobs[0].submit
    return [HeapJob(j.name, j.submit - origin, j.duration, j.width) for j in jobs]


def schedule(
    jobs: list[HeapJob], num_gpus: int, priority: Callable[[HeapJob], float]
) -> dict[str, tuple[float, float]]:
    """Start and end of each job. Lowest priority first, those that do not fit are passed over.

    Arrivals come before ends of the same moment, and every one of them is a scheduling point.
    """
    waiting: dict[int, list[tuple[float, int]]] = {}
    running: list[tuple[float, int, int]] = []
    times: dict[str, tuple[float, float]] = {}
    free, started, arrived = num_gpus, 0, 0
    while arrived < len(jobs) or running:
        if arrived < len(jobs) and (not running or jobs[arrived].submit <= running[0][0]):
            job, now = jobs[arrived], jobs[arrived].submit
            if job.width <= num_gpus:
                heappush(waiting.setdefault(job.width, []), (priority(job), arrived))
            arrived += 1
        else:
            now, _, ended = heappop(running)
            free += jobs[ended].width
        while True:
            fitting = [heap for width, heap in waiting.items() if heap and width <= free]
            if not fitting:
                break
            _, number = heappop(min(fitting))
            job = jobs[number]
            free -= job.width
            started += 1
            heappush(running, (now + job.duration, started, number))
            times[job.name] = (now, now + job.duration)
    return times
