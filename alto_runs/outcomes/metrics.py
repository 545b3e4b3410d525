"""What a run took and what it saved; computed from its log, after the fact."""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring_ascii
from operator import attrgetter

from alto_policy.decisions import ExitReason
from alto_policy.frozen import quick
from alto_policy.types import Task, TaskId
from alto_runs.outcomes.history import JobHistory, Outcome, RunHistory
from alto_runs.outcomes.schedule import (
    ScheduleMetrics,
    TaskTimes,
    busy_seconds,
    measure_schedule,
    times_of,
)

__all__ = ["EXIT_RULES", "Metrics", "TaskMetrics", "measure", "metrics_json"]

# Exits that spare samples; a job that is cancelled or does not fit saves nothing.
EXIT_RULES = (
    ExitReason.UNDERPERFORMED,
    ExitReason.OVERFITTED,
    ExitReason.DIVERGED,
    ExitReason.NON_FINITE,
)
_NONE_SAVED = dict.fromkeys(EXIT_RULES, 0)
_STOPPED = Outcome.STOPPED  # a member asked of its enum takes 0.09 us in Python 3.11
# Of a task of one job, by how that ended; a trace may have 100,000 of them.
_ALONE = {ending: {each: int(each is ending) for each in Outcome} for ending in Outcome}


@quick
@dataclass(frozen=True, slots=True)
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
    tasks: dict[TaskId, TaskMetrics] = {}

    def measured() -> Iterator[TaskTimes]:
        """The times of one task after another, so that no more than one is held."""
        for task, jobs in history.by_task():
            times = times_of(task, jobs, history)
            tasks[task.id] = _of_task(task, jobs, times, history)
            yield times

    schedule = measure_schedule(measured(), history.outages)
    start = min(history.arrivals.values(), default=history.end)
    return Metrics(_overall(tasks.values(), history, history.end - start), tasks, schedule)


def metrics_json(metrics: Metrics, step_times: str | None = None) -> Iterator[str]:
    """Parts of a document: the basis of simulated times, the overall measures, `schedule` how tasks
    were served, `tasks` each.

    A task is one line.
    """
    schedule = asdict(metrics.schedule)
    record = {"step_times": step_times, **asdict(metrics.overall), "schedule": schedule}
    yield json.dumps(record, indent=2, allow_nan=False).removesuffix("\n}") + ',\n  "tasks": {'
    end, template = "\n", _template(TaskMetrics.__slots__[:7])
    counts, text = None, ""  # most tasks of a trace share what is counted by rule and outcome
    for task, measures in metrics.tasks.items():
        if counts != (measures.saved_by_rule, measures.jobs_by_outcome, measures.reports):
            counts = measures.saved_by_rule, measures.jobs_by_outcome, measures.reports
            text = json.dumps(dict(zip(TaskMetrics.__slots__[7:], counts, strict=True)))[1:-1]
        numbers = template % _NUMBERS(measures)
        yield f"{end}    {encode_basestring_ascii(task)}: {{{numbers}, {text}}}"
        end = ",\n"
    yield "\n  }\n}\n" if metrics.tasks else "}\n}\n"


def _template(names: Iterable[str]) -> str:
    """JSON members with a place for each number: faster than `json.dumps`."""
    return ", ".join(f"{json.dumps(name)}: %s" for name in names)


def _of_task(
    task: Task, jobs: Sequence[JobHistory], times: TaskTimes, history: RunHistory
) -> TaskMetrics:
    total = trained = reports = 0
    for job in jobs:
        per_step = job.spec.hyperparameters.samples_per_step
        total += job.spec.steps * per_step
        trained += job.steps * per_step
        reports += len(job.reports)
    spans = history.spans.get(task.id, ())
    held = [(span.end - span.start) * len(span.gpus) for span in spans]
    end = history.end if times.end is None else times.end
    saved = _saved(jobs)
    num_saved = sum(saved.values())
    return TaskMetrics(  # by place: each name costs 50 ns, and a trace has 100,000 tasks
        end - times.arrival,
        held[0] if len(held) == 1 else math.fsum(held),
        busy_seconds(task, jobs),
        total,
        trained,
        num_saved,
        num_saved / total,
        saved,
        _outcomes(jobs),
        reports,
    )


def _saved(jobs: Iterable[JobHistory]) -> Mapping[ExitReason, int]:
    """Samples by the rule that spared them."""
    saved = _NONE_SAVED
    for job in jobs:
        if job.outcome is _STOPPED and job.reason in _NONE_SAVED:
            saved = saved.copy() if saved is _NONE_SAVED else saved
            saved[job.reason] += job.spec.samples(job.spec.steps) - job.samples
    return saved


def _outcomes(jobs: Collection[JobHistory]) -> Mapping[Outcome, int]:
    if len(jobs) == 1:
        (job,) = jobs
        return _ALONE[job.outcome]
    counts = Counter([job.outcome for job in jobs])
    return {outcome: counts[outcome] for outcome in Outcome}


def _overall(tasks: Collection[TaskMetrics], history: RunHistory, makespan: float) -> TaskMetrics:
    savers = [task.saved_by_rule for task in tasks if task.samples_saved]
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
        saved_by_rule={rule: sum([by_rule[rule] for by_rule in savers]) for rule in EXIT_RULES},
        jobs_by_outcome=_outcomes(history.jobs.values()),
        reports=sum(task.reports for task in tasks),
    )
