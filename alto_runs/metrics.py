"""What a run took and what it saved; computed from its log, after the fact."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from alto_policy.decisions import ExitReason
from alto_policy.types import Task, TaskId
from alto_runs.history import ExecutorSpan, JobHistory, Outcome, Residency, RunHistory
from alto_runs.schedule import ScheduleMetrics, measure_schedule, occupied, task_times

__all__ = ["EXIT_RULES", "Metrics", "TaskMetrics", "measure", "metrics_json"]

# Exits that spare samples; a job that is cancelled or too large for the GPU saves nothing.
EXIT_RULES = (
    ExitReason.UNDERPERFORMED,
    ExitReason.OVERFITTED,
    ExitReason.DIVERGED,
    ExitReason.NON_FINITE,
)
_ENDED = (Outcome.FINISHED, Outcome.STOPPED, Outcome.FAILED)


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


@dataclass(frozen=True, slots=True)
class Metrics:
    overall: TaskMetrics
    tasks: Mapping[TaskId, TaskMetrics]
    schedule: ScheduleMetrics


def measure(history: RunHistory) -> Metrics:
    tasks = {task.id: _of_task(task, history) for task in history.tasks}
    start = min(history.arrivals.values(), default=history.end)
    overall = _measure(tuple(history.jobs.values()), history.executors, history.end - start)
    return Metrics(overall, tasks, measure_schedule(task_times(history)))


def metrics_json(metrics: Metrics) -> str:
    """The overall measures, under `schedule` how tasks were served, under `tasks` each of them.

    A task is one line: a trace may have a hundred thousand.
    """
    record = {**asdict(metrics.overall), "schedule": asdict(metrics.schedule)}
    head = json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}")
    if not metrics.tasks:
        return head + ',\n  "tasks": {}\n}\n'
    names = [field.name for field in fields(TaskMetrics)]
    tasks = (
        f"    {json.dumps(task)}: "
        + json.dumps({name: getattr(measures, name) for name in names}, allow_nan=False)
        for task, measures in metrics.tasks.items()
    )
    return head + ',\n  "tasks": {\n' + ",\n".join(tasks) + "\n  }\n}\n"


def _of_task(task: Task, history: RunHistory) -> TaskMetrics:
    jobs = history.of_task(task)
    is_over = all(job.outcome in _ENDED for job in jobs)
    departures = [stay.end for job in jobs for stay in job.residencies]
    arrival = history.arrivals[task.id]
    end = max(departures, default=arrival) if is_over else history.end
    return _measure(jobs, history.spans[task.id], end - arrival)


def _measure(
    jobs: Sequence[JobHistory], executors: Iterable[ExecutorSpan], makespan: float
) -> TaskMetrics:
    saved = {
        rule: sum(_untrained(job) for job in jobs if _left_by(job, rule)) for rule in EXIT_RULES
    }
    total = sum(job.spec.samples(job.spec.steps) for job in jobs)
    outcomes = Counter(job.outcome for job in jobs)
    return TaskMetrics(
        makespan_seconds=makespan,
        gpu_seconds=sum((span.end - span.start) * len(span.gpus) for span in executors),
        busy_gpu_seconds=_busy(stay for job in jobs for stay in job.residencies),
        samples_total=total,
        samples_trained=sum(job.samples for job in jobs),
        samples_saved=sum(saved.values()),
        saved_share=sum(saved.values()) / total if total else 0.0,
        saved_by_rule=saved,
        jobs_by_outcome={outcome: outcomes[outcome] for outcome in Outcome},
        reports=sum(len(job.reports) for job in jobs),
    )


def _left_by(job: JobHistory, rule: ExitReason) -> bool:
    return job.outcome is Outcome.STOPPED and job.reason is rule


def _untrained(job: JobHistory) -> int:
    return job.spec.samples(job.spec.steps - job.steps)


def _busy(residencies: Iterable[Residency]) -> float:
    """Seconds with at least one job, summed over the GPUs."""
    return sum(end - start for start, end in occupied(residencies))
