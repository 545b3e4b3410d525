"""Learns from runs what takes time while nobody trains: launches, reports and departures."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from alto_policy.events import Departure
from alto_runs.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_runs.history import JobHistory, Outcome, RunHistory
from alto_sim.overheads import Departed, Leaving

__all__ = ["Told", "seconds_to_leave", "seconds_to_start"]

_AT_ONCE_SECONDS = 5e-3  # reports of one evaluation are no further apart


@dataclass(frozen=True, slots=True)
class Told:
    """A run, and how much longer each stretch of its passes took since some were recorded in it
    than recordings do; None of those in which none were."""

    history: RunHistory
    work: Sequence[Work]
    beside: Sequence[float | None]  # of each row of the work


@dataclass(frozen=True, slots=True)
class _Interval:
    """From one evaluation's reports to the next."""

    untold: float  # seconds
    reports: int
    departed: Departed
    beside: float | None


def seconds_to_start(*runs: Told) -> tuple[float, float]:
    """What a job's place takes, of those launched first by an executor and of later ones. One that
    comes back from a pause finds its own, at once."""
    first, later, jobs, later_jobs = 0.0, 0.0, 0, 0
    for run in runs:
        rows = [row for row in run.work if isinstance(row, LaunchWork)]
        started = sum(bool(job.residencies) for job in run.history.jobs.values())
        if not rows:
            continue
        first, jobs = first + rows[0].seconds, jobs + rows[0].jobs
        if started > rows[0].jobs:
            later += math.fsum(row.seconds for row in rows[1:])
            later_jobs += started - rows[0].jobs
    each = first / max(1, jobs)
    return each, later / later_jobs if later_jobs else each


def seconds_to_leave(*runs: Told) -> tuple[float, Leaving]:
    """Seconds of each report in the median, and of each rank that leaves: of all that an executor
    did not tell of between evaluations, and of what was recorded beside a disk at work.

    Runs of several executors at a time tell nothing.
    """
    found = [each for run in runs for each in _intervals(run)]
    report = _median(i.untold / i.reports for i in found if not i.departed.jobs and i.reports)

    def each(*, many: bool) -> float:
        of_these = [
            (i.untold - report * i.reports + (i.beside or 0.0), i.departed.ranks)
            for i in found
            if i.departed.jobs
            and i.departed.are_many == many
            and (i.departed.is_waited_for or i.beside is not None)
        ]
        ranks = sum(ranks for _, ranks in of_these)
        return max(0.0, math.fsum(seconds for seconds, _ in of_these) / max(1, ranks))

    return report, Leaving(alone=each(many=False), together=each(many=True))


def _median(seconds: Iterable[float]) -> float:
    return max(0.0, median([*seconds] or [0.0]))


def _intervals(run: Told) -> Iterator[_Interval]:
    history, jobs = run.history, run.history.jobs.values()
    told = _told_until_reports(run.work)
    times = sorted(report.t for job in jobs for report in job.reports)
    starts = [t for i, t in enumerate(times) if not i or t - times[i - 1] > _AT_ONCE_SECONDS]
    if len(starts) != len(told) or len(history.executors) != 1:
        return
    bounds = [*starts, history.executors[0].end]
    departures = [
        (stay.end, stay.how, job.spec.hyperparameters.rank, _since_best(job, stay.end))
        for job in jobs
        for stay in job.residencies
        if stay.how is not None
    ]
    cut, beside = _last_pause_of_stopped(history), _beside_next(run)
    for place, (begin, end) in enumerate(pairwise(bounds)):
        departed = Departed()
        for t, how, rank, since_best in departures:
            if begin <= t < end or t == end == bounds[-1]:
                departed.add(rank, how, since_best)
        departed.is_waited_for |= begin <= cut < end
        yield _Interval(
            untold=end - begin - [*told[1:], 0.0][place],
            reports=sum(begin <= t < end for t in times),
            departed=departed,
            beside=beside[place],
        )


def _beside_next(run: Told) -> list[float | None]:
    """Of the first passes after each evaluation."""
    found: list[float | None] = []
    for row, seconds in zip(run.work, run.beside, strict=True):
        if isinstance(row, EvaluationWork):
            found.append(None)
            is_next = True
        elif isinstance(row, TrainingWork) and found and is_next:
            found[-1], is_next = seconds, False
    return found


def _last_pause_of_stopped(history: RunHistory) -> float:
    """When the last of the jobs paused from which some were selected, and the others stopped."""
    paused = [
        (job.outcome is Outcome.STOPPED, stay.end)
        for job in history.jobs.values()
        for stay in job.residencies
        if stay.how is Departure.PAUSED
    ]
    return max(end for _, end in paused) if any(is_stopped for is_stopped, _ in paused) else -1.0


def _since_best(job: JobHistory, t: float) -> int:
    """Reports after the best one, until then."""
    losses = [report.val_loss for report in job.reports if report.t <= t]
    known = [loss for loss in losses if math.isfinite(loss)]
    return len(losses) - 1 - losses.index(min(known)) if known else len(losses)


def _told_until_reports(work: Iterable[Work]) -> list[float]:
    """Seconds of each evaluation and what came before it."""
    told, since = [], 0.0
    for row in work:
        since += row.seconds
        if isinstance(row, EvaluationWork):
            told.append(since)
            since = 0.0
    return told
