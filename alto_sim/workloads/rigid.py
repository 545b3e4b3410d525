"""A trace as rigid jobs: each takes its GPUs for its recorded time, and nothing can be tuned."""

import math
import random

from alto_policy.events import TaskArrived
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.importers.trace import Trace, TraceJob
from alto_sim.machines.failures import NO_FAULTS, Faults
from alto_sim.machines.latencies import Latencies
from alto_sim.workloads.workload import Workload

__all__ = ["AT_ONCE", "rigid"]

# For comparisons with schedulers whose simulators know no delays.
AT_ONCE = Latencies(start=0, load=0, launch=0, report=0, pause=0, checkpoint=0, stop=0)

_NOTHING_TO_TUNE = Hyperparameters()


def rigid(
    trace: Trace,
    latencies: Latencies,
    *,
    seconds_per_iteration: float = 0.1,
    misprediction: float = 0.0,
    seed: int = 0,
    faults: Faults = NO_FAULTS,
) -> Workload:
    """One task of one job for each row.

    Its true duration is the backend's own. Its `steps` are what its user declares: the duration
    in whole seconds, times a log-normal factor of median 1 and sigma `misprediction`. A row without
    a duration takes so many seconds for each of its iterations.
    """
    dice = random.Random(f"{seed}/mispredictions")
    arrivals: list[TaskArrived] = []
    durations: dict[JobId, float] = {}
    start = trace.start
    for row in trace.jobs:
        duration = row.duration
        if duration is None:
            duration = (row.iterations or 0) * seconds_per_iteration
        factor = dice.lognormvariate(0.0, misprediction) if misprediction else 1.0
        arrivals.append(TaskArrived(row.submitted - start, _task(row, duration * factor)))
        durations[JobId(row.id)] = duration
    return Workload(
        arrivals=tuple(arrivals),
        curves=GeneratedCurves(),
        latencies=latencies,
        durations=durations,
        faults=faults,
    )


def _task(row: TraceJob, declared: float) -> Task:
    job = Job(
        id=JobId(row.id),
        hyperparameters=_NOTHING_TO_TUNE,
        steps=max(1, math.ceil(declared)),
        reports=1,
    )
    return Task(
        id=TaskId(row.id),
        jobs=(job,),
        backbone=row.model,
        max_length=1,
        num_gpus=row.num_gpus,
        tenant=row.tenant,
    )
