"""Learns from runs what takes time while nobody trains: launches, reports and departures."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from alto_policy.events import Departure
from alto_runs.executor_work import EvaluationWork, LaunchWork, Work
from alto_runs.history import RunHistory

__all__ = ["Departures", "seconds_to_leave", "seconds_to_start"]

_AT_ONCE_SECONDS = 5e-3  # reports of one evaluation are no further apart


@dataclass(frozen=True, slots=True)
class Departures:
    """Seconds that executors do not tell of."""

    report: float  # of each
    stopped: float  # of each rank
    together: float  # the same of jobs that pause or finish


@dataclass(frozen=True, slots=True)
class _Interval:
    """From one evaluation's reports to the next."""

    untold: float  # seconds
    reports: int
    stopped: int  # ranks of jobs that were
    together: int  # of those that paused or finished


def seconds_to_start(*runs: tuple[RunHistory, Iterable[Work]]) -> float:
    """What a job's first place takes. One that comes back from a pause finds its own, at once."""
    took = math.fsum(row.seconds for _, work in runs for row in work if isinstance(row, LaunchWork))
    started = sum(bool(job.residencies) for history, _ in runs for job in history.jobs.values())
    return took / max(1, started)


def seconds_to_leave(*runs: tuple[RunHistory, Sequence[Work]]) -> Departures:
    """Shares in what an executor did not tell of between evaluations, in the median: a disk that
    others use is no guide. Mostly a best adapter is on its way there: those of jobs that go at one
    moment are written side by side, but a decision to stop a job waits for its own.

    Runs of several executors at a time tell nothing.
    """
    found = [each for history, work in runs for each in _intervals(history, work)]
    report = _median(i.untold / i.reports for i in found if not i.stopped + i.together)
    stopped = _median(
        (i.untold - report * i.reports) / i.stopped for i in found if i.stopped and not i.together
    )
    together = _median(
        (i.untold - report * i.reports) / i.together for i in found if i.together and not i.stopped
    )
    return Departures(report, stopped, together)


def _median(seconds: Iterable[float]) -> float:
    return max(0.0, median([*seconds] or [0.0]))


def _intervals(history: RunHistory, work: Sequence[Work]) -> Iterator[_Interval]:
    told = _told_until_reports(work)
    jobs = history.jobs.values()
    times = sorted(report.t for job in jobs for report in job.reports)
    starts = [t for i, t in enumerate(times) if not i or t - times[i - 1] > _AT_ONCE_SECONDS]
    if len(starts) != len(told) or len(history.executors) != 1:
        return
    bounds = [*starts, history.executors[0].end]
    departures = [
        (stay.end, stay.how is Departure.STOPPED, job.spec.hyperparameters.rank)
        for job in jobs
        for stay in job.residencies
        if stay.how is not None
    ]
    for (begin, end), seconds in zip(pairwise(bounds), [*told[1:], 0.0], strict=True):
        left = [
            (is_stop, rank)
            for t, is_stop, rank in departures
            if begin <= t < end or t == end == bounds[-1]
        ]
        yield _Interval(
            untold=end - begin - seconds,
            reports=sum(begin <= t < end for t in times),
            stopped=sum(rank for is_stop, rank in left if is_stop),
            together=sum(rank for is_stop, rank in left if not is_stop),
        )


def _told_until_reports(work: Iterable[Work]) -> list[float]:
    """Seconds of each evaluation and what came before it."""
    told, since = [], 0.0
    for row in work:
        since += row.seconds
        if isinstance(row, EvaluationWork):
            told.append(since)
            since = 0.0
    return told
