"""What a run took and what it saved; computed from its log, after the fact."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from alto_policy.decisions import ExitReason
from alto_policy.frozen import quick
from alto_policy.types import Task, TaskId
from alto_runs.history import Outcome, RunHistory
from alto_runs.schedule import (
    ScheduleMetrics,
    TaskTimes,
    busy_seconds,
    measure_schedule,
    times_of,
)

__all__ = ["EXIT_RULES", "Metrics", "TaskMetrics", "measure", "metrics_json"]

# Exits that spare samples; a job that is cancelled or too large for the GPU saves nothing.
EXIT_RULES = (
    ExitReason.UNDERPERFORMED,
    ExitReason.OVERFITTED,
    ExitReason.DIVERGED,
    ExitReason.NON_FINITE,
)
_NONE_SAVED = dict.fromkeys(EXIT_RULES, 0)
_NO_OUTCOMES = dict.fromkeys(Outcome, 0)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMetrics:
    """Times are in seconds; samples are those of training, counted once however often trained.

    Samples of the search are trained, saved by an exit, or neither: of jobs that failed, were
    cancelled or have not ended.
    """

    makespan_seconds: float  # from the arrival to the end
    gpu_seconds: float  # that executors held GPUs with their backbone loaded
    busy_gpu_seconds: float  # of these, with a job resident
    samples_total: int
    samples_trained: int
    samples_saved: int
    saved_share: float
    saved_by_rule: Mapping[ExitReason, int]
    jobs_by_outcome: Mapping[Outcome, int]
    reports: int


_NUMBERS = attrgetter(*TaskMetrics.__slots__[:7])


@dataclass(frozen=True, slots=True)
class Metrics:
    overall: TaskMetrics
    tasks: Mapping[TaskId, TaskMetrics]
    schedule: ScheduleMetrics


def measure(history: RunHistory) -> Metrics:
    shared: dict[object, Mapping[Any, int]] = {}
    tasks: dict[TaskId, TaskMetrics] = {}

    def measured() -> Iterator[TaskTimes]:
        """The times of one task after another, so that no more than one is held."""
        for task in history.tasks:
            times = times_of(task, history)
            tasks[task.id] = _of_task(task, times, history, shared)
            yield times

    schedule = measure_schedule(measured(), history.outages)
    start = min(history.arrivals.values(), default=history.end)
    return Metrics(_overall(tasks.values(), history.end - start), tasks, schedule)


def metrics_json(metrics: Metrics) -> Iterator[str]:
    """Parts of a document: the overall measures, `schedule` how tasks were served, `tasks` each.

    A task is one line.
    """
    record = {**asdict(metrics.overall), "schedule": asdict(metrics.schedule)}
    yield json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}") + ',\n  "tasks": {'
    template, end = _template(), "\n"
    for task, measures in metrics.tasks.items():
        saved, outcomes = measures.saved_by_rule.values(), measures.jobs_by_outcome.values()
        numbers = template % (*_NUMBERS(measures), *saved, *outcomes, measures.reports)
        yield f"{end}    {json.dumps(task)}: {numbers}"
        end = ",\n"
    yield "\n  }\n}\n" if metrics.tasks else "}\n}\n"


def _template() -> str:
    """JSON of a task's measures with a place for each number: faster than `json.dumps`."""
    counts = {"saved_by_rule": EXIT_RULES, "jobs_by_outcome": tuple(Outcome)}
    parts = []
    for name in TaskMetrics.__slots__:
        places = ", ".join(f"{json.dumps(key.value)}: %s" for key in counts.get(name, ()))
        parts.append(f"{json.dumps(name)}: " + (f"{{{places}}}" if places else "%s"))
    return f"{{{', '.join(parts)}}}"


def _of_task(
    task: Task,
    times: TaskTimes,
    history: RunHistory,
    shared: dict[object, Mapping[Any, int]],
) -> TaskMetrics:
    """`shared` has the counts of earlier tasks: of a hundred thousand tasks most have the same."""
    total = trained = reports = 0
    saved, outcomes = _NONE_SAVED.copy(), _NO_OUTCOMES.copy()
    for spec in task.jobs:
        job = history.jobs[spec.id]
        steps, per_step = job.steps, spec.hyperparameters.samples_per_step
        total += spec.steps * per_step
        trained += steps * per_step
        reports += len(job.reports)
        outcomes[job.outcome] += 1
        if job.outcome is Outcome.STOPPED and job.reason in saved:
            saved[job.reason] += (spec.steps - steps) * per_step
    held = [(span.end - span.start) * len(span.gpus) for span in history.spans.get(task.id, ())]
    end = history.end if times.end is None else times.end
    num_saved = sum(saved.values())
    return TaskMetrics(
        makespan_seconds=end - times.arrival,
        gpu_seconds=math.fsum(held),
        busy_gpu_seconds=busy_seconds(task, history),
        samples_total=total,
        samples_trained=trained,
        samples_saved=num_saved,
        saved_share=num_saved / total,
        saved_by_rule=shared.setdefault(tuple(saved.values()), saved),
        jobs_by_outcome=shared.setdefault(tuple(outcomes.values()), outcomes),
        reports=reports,
    )


def _overall(tasks: Collection[TaskMetrics], makespan: float) -> TaskMetrics:
    total = sum(task.samples_total for task in tasks)
    saved = sum(task.samples_saved for task in tasks)
    return TaskMetrics(
        makespan_seconds=makespan,
        gpu_seconds=math.fsum(task.gpu_seconds for task in tasks),
        busy_gpu_seconds=math.fsum(task.busy_gpu_seconds for task in tasks),
        samples_total=total,
        samples_trained=sum(task.samples_trained for task in tasks),
        samples_saved=saved,
        saved_share=saved / total if total else 0.0,
        saved_by_rule={r: sum(task.saved_by_rule[r] for task in tasks) for r in EXIT_RULES},
        jobs_by_outcome={o: sum(task.jobs_by_outcome[o] for task in tasks) for o in Outcome},
        reports=sum(task.reports for task in tasks),
    )
