"""How good a rule was on a full grid, whoever decided: budget, regret, what it lost."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import cache

import numpy as np
from numpy.typing import NDArray

from experiments.grids.columns import report_in
from experiments.grids.curve_sets import Array, CurveSet
from experiments.grids.table_backend import Play

__all__ = [
    "Judgement",
    "judge",
    "judge_random",
    "oracle",
    "random_play",
    "report_samples",
    "spearman",
    "top_quarter",
    "winner",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Shares are of 1; `regret` is relative to the best loss of the full grid."""

    budget: float  # samples trained, of those of the full grid
    regret: float
    top_kept: float  # of the true best quarter of the jobs, trained to their own best loss
    false_kills: float  # jobs that were stopped, and would have beaten the winner
    time_to_best: float  # samples of the full grid until the winner's best report


def judge(curves: CurveSet, play: Play) -> Judgement:
    """Jobs are compared by their least validation loss: the best adapter is kept at once."""
    rows, columns = np.array(play.rows), np.array(play.columns)
    cost = report_samples(curves)
    total = cost.sum()
    seen = np.where(np.isfinite(curves.val[rows, columns]), curves.val[rows, columns], np.inf)
    winner = int(np.argmin(seen))
    reached = np.zeros(len(curves.task.jobs), dtype=int)
    np.maximum.at(reached, rows, columns + 1)
    found = float(seen[winner])
    best = curves.best
    own_best = np.argmin(np.where(np.isfinite(curves.val), curves.val, np.inf), axis=1)
    top = top_quarter(best)
    return Judgement(
        budget=float(cost[rows, columns].sum() / total),
        regret=found / float(best.min()) - 1,
        top_kept=float(np.mean(reached[top] > own_best[top])),
        false_kills=int(np.sum(best < found)),
        time_to_best=float(cost[rows, columns][: winner + 1].sum() / total),
    )


def winner(curves: CurveSet, play: Play) -> tuple[int, bool]:
    """Row of the job of the least loss seen, and whether it got as far as its own best report."""
    rows, columns = np.array(play.rows), np.array(play.columns)
    seen = np.where(np.isfinite(curves.val[rows, columns]), curves.val[rows, columns], np.inf)
    row = int(rows[np.argmin(seen)])
    return row, bool(seen.min() == curves.best[row])


def top_quarter(best: Array) -> NDArray[np.intp]:
    """Rows of the best quarter of the jobs."""
    return np.argsort(best, kind="stable")[: -(-len(best) // 4)]


def random_play(curves: CurveSet, budget: float, seed: int) -> Play:
    """Jobs drawn at random and trained to their ends, as many as the budget pays for."""
    cost = report_samples(curves)
    order = np.random.default_rng(seed).permutation(len(cost))
    left = budget * cost.sum()
    rows: list[int] = []
    columns: list[int] = []
    for row in order:
        trained = int(np.searchsorted(np.cumsum(cost[row]), left, side="right"))
        rows += [int(row)] * trained
        columns += range(trained)
        left -= float(cost[row, :trained].sum())
        if trained < cost.shape[1]:
            break
    return Play(tuple(rows), tuple(columns)) if rows else Play((int(order[0]),), (0,))


def judge_random(curves: CurveSet, budget: float, seeds: Iterable[int]) -> Judgement:
    """In the mean of a draw for each seed: what one draw finds is luck."""
    draws = [astuple(judge(curves, random_play(curves, budget, seed))) for seed in seeds]
    return Judgement(
        **{
            field.name: float(mean)
            for field, mean in zip(fields(Judgement), np.mean(draws, axis=0), strict=True)
        }
    )


def oracle(curves: CurveSet) -> Play:
    """The best job alone, to its best report."""
    row = int(np.argmin(curves.best))
    last = int(np.nanargmin(curves.val[row]))
    return Play((row,) * (last + 1), tuple(range(last + 1)))


def spearman(first: Array, second: Array) -> float:
    """Rank correlation; equal values share their mean rank."""
    a, b = _ranks(first), _ranks(second)
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means = ends - (counts - 1) / 2
    return np.asarray(means[inverse], dtype=np.float64)


@cache
def report_samples(curves: CurveSet) -> Array:
    """Training samples before the report of each column, [jobs, columns]."""
    columns = curves.num_reports
    reached = [
        [job.samples(job.report_step(report_in(job, n, columns))) for n in range(columns)]
        for job in curves.task.jobs
    ]
    return np.diff(np.array(reached, dtype=np.float64), axis=1, prepend=0.0)
