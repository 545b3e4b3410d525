"""Workloads of logs: of a trace that nobody trained, and of a run once more."""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorUp, TaskArrived, TaskCancelled
from alto_policy.memory import MemoryModel
from alto_policy.runlog import RunLog
from alto_policy.types import JobId, TaskId
from alto_runs.files.executor_work import Work
from alto_runs.outcomes.history import Outcome, RunHistory, follow
from alto_sim.calibration.fitted import Fitted
from alto_sim.calibration.from_runs import learnt
from alto_sim.curves.generated import DEFAULT_SHAPE, GeneratedCurves, Shape
from alto_sim.curves.losses import RecordedCurves
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload

__all__ = ["recorded", "synthetic"]


def synthetic(trace: RunLog, *, seed: int = 0, shape: Shape = DEFAULT_SHAPE) -> Workload:
    """The tasks of a trace that nobody has trained, with generated losses."""
    arrivals = _arrivals(trace)
    curves = GeneratedCurves((arrival.task for arrival in arrivals), seed=seed, shape=shape)
    return Workload(arrivals=arrivals, curves=curves, cancellations=_cancellations(trace))


def recorded(log: RunLog, work: Sequence[Work] = (), times: Fitted | None = None) -> Workload:
    """A run once more: its tasks, losses and memory, and its times as fitted from it if none are
    given.

    What its executors told of their `work` is fitted where there is any, else the times between
    reports; those hold the delays of messages, so that only an executor's start is late. A job
    that ended without a report was rigid, and lasts as long again.
    """
    measured: dict[TaskId, MemoryModel] = {}
    asked: dict[TaskId, float] = {}
    starts: list[float] = []
    for entry in log.entries:
        if isinstance(up := entry.event, ExecutorUp):
            measured[up.task] = up.memory
            starts.append(up.t - asked[up.task])
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                asked[decision.task] = entry.event.t
    start = median(starts) if starts else DEFAULT_LATENCIES.start
    history = follow(log)
    fitted = times or learnt((log, work), histories=[history])
    return Workload(
        arrivals=_arrivals(log),
        curves=RecordedCurves.of_log(log.entries),
        step_time=fitted.step_time,
        overheads=fitted.overheads,
        latencies=replace(DEFAULT_LATENCIES, load=start),
        measured=measured,
        durations=_durations(history),
        cancellations=_cancellations(log),
    )


def _arrivals(log: RunLog) -> tuple[TaskArrived, ...]:
    """A cluster's kinds of GPU are not those of another."""
    events = (entry.event for entry in log.entries)
    arrivals = (event for event in events if isinstance(event, TaskArrived))
    return tuple(
        each
        if each.task.kinds is None
        else replace(each, task=replace(each.task, kinds=None, speeds=()))
        for each in arrivals
    )


def _durations(history: RunHistory) -> dict[JobId, float]:
    """Seconds on a GPU of the jobs that finished without a report."""
    return {
        name: math.fsum(stay.end - stay.start for stay in job.residencies)
        for name, job in history.jobs.items()
        if job.outcome is Outcome.FINISHED and not job.reports
    }


def _cancellations(log: RunLog) -> tuple[TaskCancelled, ...]:
    return tuple(entry.event for entry in log.entries if isinstance(entry.event, TaskCancelled))
