"""Ways to use a budget: rounds of selection, by which score, and how sure one must be.

A numerical model of policies that pause all jobs at a round and rank them: it needs no events, so
that hundreds of settings can be tried. `alto` is one round; what it gives is what `alto` does.
"""

import math
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from alto_policy.events import LossReported
from alto_policy.exits import ExitRules, exit_reason
from alto_policy.types import JobId
from experiments.grids.columns import column_of, report_in
from experiments.grids.curve_sets import Array, CurveSet
from experiments.grids.judging import report_samples, top_quarter

__all__ = ["ALTO", "Outcome", "Selection", "lacks", "outcome", "own_exits", "reached"]

Counts = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    rounds: tuple[float, ...]  # shares of a job's own samples
    keep: tuple[float, ...]  # of the jobs that live to the round
    lookahead: float = 0.0  # of the fall that the slope foretells, added to the loss
    margin: float = 0.0  # relative to the last one kept: so close is kept as well
    handicap: float = 0.0  # of large batches, as that of `alto+`
    rules: ExitRules = field(default_factory=ExitRules)


ALTO = Selection(rounds=(0.05,), keep=(0.25,))


@dataclass(frozen=True, slots=True)
class Outcome:
    budget: float
    regret: float
    top_kept: float


def reached(curves: CurveSet, selection: Selection) -> Counts:
    """Columns of each job until it is stopped."""
    ends = own_exits(curves, selection.rules).copy()
    for share, keep in zip(selection.rounds, selection.keep, strict=True):
        column = math.ceil(round(share * curves.num_reports, 9)) - 1
        (alive,) = np.nonzero(ends > column + 1)
        if not len(alive):
            break
        scores = score(curves, alive, column, selection.lookahead)
        scores = scores * np.exp(-selection.handicap * lacks(curves, share)[alive])
        ranked = np.argsort(scores, kind="stable")
        kept = max(1, math.ceil(round(keep * len(alive), 9)))
        bound = scores[ranked[kept - 1]]
        is_close = (scores <= bound + selection.margin * abs(bound)) & (selection.margin > 0)
        is_kept = np.zeros(len(alive), dtype=bool)
        is_kept[ranked[:kept]] = True
        ends[alive[~(is_kept | is_close)]] = column + 1
    return ends


def score(curves: CurveSet, rows: Counts, column: int, lookahead: float) -> Array:
    """Loss at the report, and the fall that is to come if it goes on over the logarithm of time."""
    now: Array = curves.val[rows, column]
    before = (column + 2) // 2 - 1  # the first report at or after half of the share
    if lookahead == 0 or before == column:
        return now
    shares = _report_shares(curves)[rows]
    fall = (curves.val[rows, before] - now) / np.log(shares[:, column] / shares[:, before])
    foreseen: Array = now + lookahead * fall * np.log(shares[:, column])
    return foreseen


def outcome(curves: CurveSet, selection: Selection) -> Outcome:
    ends = reached(curves, selection)
    cost = np.cumsum(report_samples(curves), axis=1)
    spent = sum(cost[row, end - 1] for row, end in enumerate(ends) if end)
    known = np.where(np.isfinite(curves.val), curves.val, np.inf)
    is_seen = np.arange(curves.num_reports) < ends[:, None]
    best = curves.best
    found = np.where(is_seen, known, np.inf).min()
    top = top_quarter(best)
    own_best = np.argmin(known, axis=1)
    return Outcome(
        budget=float(spent / cost[:, -1].sum()),
        regret=float(found / best.min() - 1),
        top_kept=float(np.mean(ends[top] > own_best[top])),
    )


@cache
def lacks(curves: CurveSet, share: float) -> Array:
    """What the handicap of each job is a multiple of, after a share of its samples."""
    sizes = [job.hyperparameters.samples_per_step for job in curves.task.jobs]
    found: Array = np.log(sizes) * math.log(1 / share)
    return found


@cache
def _report_shares(curves: CurveSet) -> Array:
    """Share of each job's steps at the report of each column."""
    columns = curves.num_reports
    return np.array(
        [
            [job.report_step(report_in(job, n, columns)) / job.steps for n in range(columns)]
            for job in curves.task.jobs
        ]
    )


@cache
def own_exits(curves: CurveSet, rules: ExitRules) -> Counts:
    """Columns of each job until a rule about its own curve stops it, or to its end."""
    ends = np.full(len(curves.task.jobs), curves.num_reports, dtype=np.intp)
    for row, job in enumerate(curves.task.jobs):
        history: list[LossReported] = []
        for number in range(1, job.reports):
            column = column_of(job, number, curves.num_reports)
            train, val = curves.train[row, column], curves.val[row, column]
            history.append(LossReported(0.0, JobId(""), column + 1, float(train), float(val)))
            if exit_reason(history, rules) is not None:
                ends[row] = column + 1
                break
    return ends
