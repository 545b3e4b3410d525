"""Learns from runs what takes time while nobody trains: launches, reports and departures."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from alto_policy.decisions import Launch, Stop
from alto_policy.events import Departure, JobLeft
from alto_policy.runlog import RunLog
from alto_policy.types import JobId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_runs.outcomes.history import JobHistory, RunHistory
from alto_sim.times.overheads import FEW_LEAVING, Departed, Leaving

__all__ = ["Beside", "Told", "seconds_to_leave", "seconds_to_start", "stops_of_paused"]

_AT_ONCE_SECONDS = 5e-3  # reports of one evaluation are no further apart
_PASSES_BESIDE = [step * 5e-3 for step in range(41)]  # seconds, of which one tells best


@dataclass(frozen=True, slots=True)
class Beside:
    """A stretch of passes, which may have trained beside a disk at work."""

    more: float  # seconds, than steady ones and their recordings take
    each: float | None  # seconds of a steady one; None where some were recorded


@dataclass(frozen=True, slots=True)
class Told:
    """A run, and what each stretch of its passes tells of a disk at work."""

    history: RunHistory
    work: Sequence[Work]
    beside: Sequence[Beside | None]  # of each row of the work
    stops: Sequence[float] = ()  # of jobs that had paused


@dataclass(frozen=True, slots=True)
class _Interval:
    """From one evaluation's reports to the next."""

    untold: float  # seconds
    reports: int
    departed: Departed
    beside: Beside | None
    is_last: bool  # until the executor is down

    @property
    def beside_recording(self) -> float | None:
        """Seconds."""
        return None if self.beside is None or self.beside.each is not None else self.beside.more


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


def seconds_to_leave(*runs: Told, waits_for_pauses: bool = False) -> tuple[float, Leaving]:
    """Seconds of each report in the median, and of each rank that leaves: of all that an executor
    did not tell of between evaluations, and of what was recorded beside a disk at work.

    Runs of several executors at a time tell nothing.
    """
    found = [each for run in runs for each in _intervals(run)]
    report = _median(i.untold / i.reports for i in found if not i.departed.jobs and i.reports)
    told = [i for i in found if i.departed.jobs]
    return report, (_waiting_for_all if waits_for_pauses else _waiting_for_gone)(told, report)


def _waiting_for_all(told: Sequence[_Interval], report: float) -> Leaving:
    def each(*, many: bool) -> float:
        return _of_each_rank(
            (i.untold - report * i.reports + (i.beside_recording or 0.0), i.departed.ranks)
            for i in told
            if i.departed.are_many == many
            and (i.departed.is_waited_for or i.beside_recording is not None)
        )

    leaving = Leaving(alone=each(many=False), together=each(many=True))
    return _with_passes_beside(leaving, told)


def _waiting_for_gone(told: Sequence[_Interval], report: float) -> Leaving:
    def each(*, many: bool) -> float:
        return _of_each_rank(
            (i.untold - report * i.reports, i.departed.gone_ranks)
            for i in told
            if i.departed.gone_jobs and not i.departed.is_given_up and not i.is_last
            if (i.departed.gone_jobs > FEW_LEAVING) == many
        )

    alone, together = each(many=False), each(many=True)
    leaving = Leaving(alone=alone or together, together=together or alone, paused=0.0)
    paused = _of_each_rank(
        (i.untold - report * i.reports - i.departed.waited(leaving), i.departed.paused_ranks)
        for i in told
        if i.departed.is_given_up
    )
    return replace(leaving, paused=paused)


def _of_each_rank(told: Iterable[tuple[float, int]]) -> float:
    """By least squares: of a short wait most is for something else."""
    known = list(told)
    squares = math.fsum(ranks**2 for _, ranks in known)
    return max(0.0, math.fsum(seconds * ranks for seconds, ranks in known) / max(1.0, squares))


def _with_passes_beside(leaving: Leaving, intervals: Sequence[_Interval]) -> Leaving:
    """What the host takes for a pass while many are written, of passes that nobody recorded."""
    told = [
        (i.departed.beside(leaving), i.beside.more, i.beside.each)
        for i in intervals
        if i.departed.are_many and not i.departed.is_waited_for
        if i.beside is not None and i.beside.each is not None
    ]

    def missed(found: Leaving) -> float:
        return math.fsum((more - writing * found.slows(each)) ** 2 for writing, more, each in told)

    return min((replace(leaving, pass_beside=seconds) for seconds in _PASSES_BESIDE), key=missed)


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
    beside = _beside_next(run)
    for place, (begin, end) in enumerate(pairwise(bounds)):
        departed = Departed()
        for t, how, rank, since_best in departures:
            if begin <= t < end or t == end == bounds[-1]:
                departed.add(rank, how, since_best)
        departed.is_given_up = any(begin <= stop < end for stop in run.stops)
        yield _Interval(
            untold=end - begin - [*told[1:], 0.0][place],
            reports=bisect_left(times, end) - bisect_left(times, begin),
            departed=departed,
            beside=beside[place],
            is_last=end == bounds[-1],
        )


def _beside_next(run: Told) -> list[Beside | None]:
    """Of the first passes after each evaluation."""
    found: list[Beside | None] = []
    for row, seconds in zip(run.work, run.beside, strict=True):
        if isinstance(row, EvaluationWork):
            found.append(None)
            is_next = True
        elif isinstance(row, TrainingWork) and found and is_next:
            found[-1], is_next = seconds, False
    return found


def stops_of_paused(log: RunLog) -> list[float]:
    """When jobs that had paused were stopped: at the end of a round, others were selected."""
    stops: list[float] = []
    paused: set[JobId] = set()
    for entry in log.entries:
        if isinstance(left := entry.event, JobLeft) and left.how is Departure.PAUSED:
            paused.add(left.job)
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                paused.difference_update(decision.jobs)
            elif isinstance(decision, Stop) and decision.job in paused:
                stops.append(entry.event.t)
    return stops


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
