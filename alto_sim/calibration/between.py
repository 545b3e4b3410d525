"""Learns from runs what takes time while nobody trains: launches, reports and departures."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from alto_policy.decisions import Launch, Stop
from alto_policy.events import Departure, JobLeft
from alto_policy.runlog import RunLog
from alto_policy.types import Job, JobId
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from alto_runs.outcomes.history import JobHistory, RunHistory
from alto_sim.calibration.least_squares import weighed
from alto_sim.times.overheads import Departed, Leaving

__all__ = [
    "Beside",
    "Interval",
    "Telling",
    "Told",
    "seconds_to_leave",
    "seconds_to_start",
    "seconds_to_tell",
    "stops_of_paused",
]

_T = TypeVar("_T")
_AT_ONCE_SECONDS = 5e-3  # reports of one evaluation are no further apart
_PASSES_BESIDE = [step * 5e-3 for step in range(41)]  # seconds, of which one tells best


@dataclass(frozen=True, slots=True)
class Beside:
    """A stretch of passes, which may have trained beside a disk at work."""

    more: float  # seconds, than steady ones and their recordings take
    each: float | None  # seconds of a steady one; None where some were recorded


@dataclass(frozen=True)  # without slots: what it is parted into is kept
class Told:
    """A run, and what each stretch of its passes tells of a disk at work."""

    history: RunHistory
    work: Sequence[Work]
    beside: Sequence[Beside | None]  # of each row of the work
    stops: Sequence[tuple[float, JobId]] = ()  # of jobs that had paused

    @cached_property
    def intervals(self) -> "tuple[Interval, ...]":
        """None of runs of several executors, or whose evaluations are not all told."""
        return tuple(_intervals(self))


@dataclass(frozen=True)  # without slots: who departed is added up once
class Interval:
    """From one evaluation's reports to the next, or until the executor is down."""

    begin: float
    untold: float  # seconds
    reports: Sequence[tuple[Job, int]]  # with its reports since the best one
    left: Sequence[tuple[Job, Departure, int]]  # the same
    given_up: Sequence[JobId]
    beside: Beside | None

    @cached_property
    def departed(self) -> Departed:
        found = Departed(is_given_up=bool(self.given_up))
        for job, how, since_best in self.left:
            found.add(job.hyperparameters.rank, how, since_best)
        return found

    @property
    def come_back(self) -> bool:
        """Whether jobs left, and all of them wait to be launched again."""
        return bool(self.left) and all(how.comes_back for _, how, _ in self.left)

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


@dataclass(frozen=True, slots=True)
class Telling:
    """Seconds to tell of reports, and to let jobs go."""

    together: float = 0.0  # of one evaluation
    each: float = 0.0  # report
    departure: float = 0.0  # of a job that pauses, or has paused and is given up

    def seconds(self, reports: int, gone: int = 0) -> float:
        told = self.together + self.each * reports if reports else 0.0
        return told + self.departure * gone


def seconds_to_tell(*runs: Told) -> Telling:
    """Of all that an executor did not tell of after evaluations from which nobody left; and after
    those from which jobs left that come back. Runs of several executors at a time tell nothing."""
    found = [each for run in runs for each in run.intervals]
    told = [i for i in found if i.reports and not i.left and not i.given_up]
    if not told:
        return Telling()
    of_reports = weighed([(1, len(i.reports)) for i in told], [i.untold for i in told])
    telling = Telling(*of_reports)
    paused = [i for i in found if i.come_back]
    seconds = math.fsum(i.untold - telling.seconds(len(i.reports)) for i in paused)
    gone = sum(len(i.left) + len(i.given_up) for i in paused)
    return replace(telling, departure=max(0.0, seconds / max(1, gone)))


def seconds_to_leave(*runs: Told, telling: Telling) -> Leaving:
    """Of each rank that leaves an older executor: of all that it did not tell of between
    evaluations, and of what was recorded beside a disk at work."""
    told = [each for run in runs for each in run.intervals if each.departed.jobs]

    def each(*, many: bool) -> float:
        return _of_each_rank(
            (
                i.untold - telling.seconds(len(i.reports)) + (i.beside_recording or 0.0),
                i.departed.ranks,
            )
            for i in told
            if i.departed.are_many == many
            and (i.departed.is_waited_for or i.beside_recording is not None)
        )

    leaving = Leaving(alone=each(many=False), together=each(many=True))
    return _with_passes_beside(leaving, told)


def _of_each_rank(told: Iterable[tuple[float, int]]) -> float:
    known = list(told)
    ranks = sum(ranks for _, ranks in known)
    return max(0.0, math.fsum(seconds for seconds, _ in known) / max(1, ranks))


def _with_passes_beside(leaving: Leaving, told_of: Sequence[Interval]) -> Leaving:
    """What the host takes for a pass while many are written, of passes that nobody recorded."""
    told = [
        (i.departed.beside(leaving), i.beside.more, i.beside.each)
        for i in told_of
        if i.departed.are_many and not i.departed.is_waited_for
        if i.beside is not None and i.beside.each is not None
    ]

    def missed(found: Leaving) -> float:
        return math.fsum((more - writing * found.slows(each)) ** 2 for writing, more, each in told)

    return min((replace(leaving, pass_beside=seconds) for seconds in _PASSES_BESIDE), key=missed)


def _intervals(run: Told) -> Iterator[Interval]:
    history, jobs = run.history, run.history.jobs.values()
    told = _told_until_reports(run.work)
    times = sorted(report.t for job in jobs for report in job.reports)
    starts = [t for i, t in enumerate(times) if not i or t - times[i - 1] > _AT_ONCE_SECONDS]
    if len(starts) != len(told) or len(history.executors) != 1:
        return
    bounds = [*starts, history.executors[0].end]
    reports = _in_intervals(
        bounds,
        (
            (report.t, (job.spec, since_best))
            for job in jobs
            for report, since_best in zip(job.reports, _since_best(job), strict=True)
        ),
    )
    left = _in_intervals(
        bounds,
        (
            (stay.end, (job.spec, stay.how, [0, *_since_best(job)][_reports_until(job, stay.end)]))
            for job in jobs
            for stay in job.residencies
            if stay.how is not None
        ),
    )
    given_up = _in_intervals(bounds, run.stops)
    beside = _beside_next(run)
    for place, (begin, end) in enumerate(pairwise(bounds)):
        yield Interval(
            begin=begin,
            untold=end - begin - [*told[1:], 0.0][place],
            reports=reports[place],
            left=left[place],
            given_up=given_up[place],
            beside=beside[place],
        )


def _in_intervals(bounds: Sequence[float], things: Iterable[tuple[float, _T]]) -> list[list[_T]]:
    """Each where its moment lies; the last bound is within the last one."""
    found: list[list[_T]] = [[] for _ in bounds[1:]]
    for t, thing in things:
        place = min(bisect_right(bounds, t) - 1, len(found) - 1)
        if bounds[0] <= t <= bounds[-1]:
            found[place].append(thing)
    return found


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


def stops_of_paused(log: RunLog) -> list[tuple[float, JobId]]:
    """When jobs that had paused were stopped: at the end of a round, others were selected."""
    stops: list[tuple[float, JobId]] = []
    paused: set[JobId] = set()
    for entry in log.entries:
        if isinstance(left := entry.event, JobLeft) and left.how is Departure.PAUSED:
            paused.add(left.job)
        for decision in entry.decisions:
            if isinstance(decision, Launch):
                paused.difference_update(decision.jobs)
            elif isinstance(decision, Stop) and decision.job in paused:
                stops.append((entry.event.t, decision.job))
    return stops


def _since_best(job: JobHistory) -> list[int]:
    """Reports after the best one until each of them."""
    found, best, since = [], math.inf, 0
    for report in job.reports:
        is_better = report.val_loss < best
        best, since = (report.val_loss, 0) if is_better else (best, since + 1)
        found.append(since)
    return found


def _reports_until(job: JobHistory, t: float) -> int:
    return bisect_right(job.reports, t, key=lambda report: report.t)


def _told_until_reports(work: Iterable[Work]) -> list[float]:
    """Seconds of each evaluation and what came before it."""
    told, since = [], 0.0
    for row in work:
        since += row.seconds
        if isinstance(row, EvaluationWork):
            told.append(since)
            since = 0.0
    return told
