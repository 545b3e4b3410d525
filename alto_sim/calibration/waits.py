"""Learns from runs how long adapters take to be written, from how long others waited for them.

An executor tells of its passes, evaluations and launches. From one evaluation's reports to the
next, what it did not tell of went into telling of reports and into waiting for adapters.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from alto_policy.types import JobId
from alto_sim.calibration.between import Interval, Telling, Told
from alto_sim.times.writing import Writers, Writing

__all__ = ["fit_writing"]

_ALONE = [2e-5 * 3**step for step in range(7)]  # seconds of a rank
_SHARES = (1, 1 / 3, 1 / 9)  # of these, of a rank of all that are written
_AGAIN = (1, 4)
_FINER, _FINER_AGAIN = (3**-0.5, 1.0, 3**0.5), (0.5, 1, 2)
_LATE = 2  # reports after the best one, at which its adapter is at last written


def fit_writing(runs: Sequence[Told], telling: Telling) -> Writing:
    """By least absolute errors, since now and then a moment takes a second for other reasons;
    `telling` is not waiting."""
    known = [[*_waiting(run.intervals, telling)] for run in runs]

    def missed(times: Writing) -> float:
        return math.fsum(_missed(moments, times) for moments in known)

    coarse = min(
        (
            Writing(one, share * one, again)
            for one, share, again in product(_ALONE, _SHARES, _AGAIN)
        ),
        key=missed,
    )
    return min(
        (
            Writing(first * coarse.alone, second * coarse.together, max(1, third * coarse.again))
            for first, second, third in product(_FINER, _FINER, _FINER_AGAIN)
        ),
        key=missed,
    )


def _waiting(moments: Iterable[Interval], telling: Telling) -> Iterator[Interval]:
    """Without what was told meanwhile, and with those reports alone that change what is to be
    written."""
    is_better: set[JobId] = set()  # than what is on the disk
    for moment in moments:
        told = []
        for job, since_best in moment.reports:
            if since_best <= _LATE and (since_best or job.id not in is_better):
                told.append((job, since_best))
            (is_better.discard if since_best else is_better.add)(job.id)
        is_better.difference_update(job.id for job, *_ in moment.left)
        paused = sum(how.comes_back for _, how, _ in moment.left)
        seconds = telling.seconds(len(moment.reports), paused + len(moment.given_up))
        yield replace(moment, reports=told, untold=moment.untold - seconds)


def _missed(moments: Sequence[Interval], times: Writing) -> float:
    writers = Writers(times)
    errors = 0.0
    for moment in moments:
        for job, since_best in moment.reports:
            writers.report(moment.begin, job, since_best)
        if not moment.left and not moment.given_up:
            continue
        for job, how, since_best in moment.left:
            writers.leave(moment.begin, job, how, since_best)
        for name in moment.given_up:
            writers.give_up(moment.begin, name)
        waited, _ = writers.settle()
        errors += abs(moment.untold - waited)
    return errors
