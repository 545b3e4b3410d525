"""How settings of a selection are chosen: by grids of other tasks than those they are judged on."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from statistics import fmean

import numpy as np

from alto_policy.policies.alto_plus import AltoPlusSettings
from experiments.grids.curve_sets import RECORDED, CurveSet, recorded_sets
from experiments.grids.judging import spearman
from experiments.grids.rounds_of_selection import ALTO, Outcome, Selection, lacks, outcome
from experiments.grids.same_task import is_same_task

__all__ = [
    "DOUBLINGS",
    "HANDICAPS",
    "KEEPS",
    "PLUS_LIMIT",
    "agreement",
    "all_recordings",
    "best_of",
    "known_outcome",
    "mean_outcome",
    "of_other_data",
    "of_other_tasks",
    "plus_of",
]

KEEPS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
HANDICAPS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035)
DOUBLINGS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)  # from the first report of the recorded grids
PLUS_LIMIT = 0.75  # of what `alto` spends
_THIRD = 1 / 3


def plus_of(others: Sequence[CurveSet], limit: float = PLUS_LIMIT) -> Selection | None:
    """For `alto+`: the handicap by ranks, which all jobs tell; then the share kept by regrets.

    Of handicaps whose correlations agree to two digits the least.
    """
    handicap = max(HANDICAPS, key=lambda each: round(agreement(others, each), 2))
    candidates = [
        Selection(
            rounds=DOUBLINGS,
            keep=(keep,) * len(DOUBLINGS),
            handicap=handicap,
            rules=AltoPlusSettings().rules,
        )
        for keep in KEEPS
    ]
    return best_of(candidates, others, limit * mean_outcome(others, ALTO).budget)


def agreement(sets: Iterable[CurveSet], handicap: float) -> float:
    """Rank correlation of losses at the first three doublings with best losses, in the mean.

    Among the true best third of each grid: to tell those from the rest is easy.
    """
    return fmean(_agreement(curves, handicap) for curves in sets)


def best_of(
    candidates: Sequence[Selection], sets: Sequence[CurveSet], limit: float
) -> Selection | None:
    """Of those within the budget the one of least regret, then of most kept, then the thriftiest.

    Regrets count in steps of a hundredth of a percent.
    """
    within = [(mean_outcome(sets, one), one) for one in candidates]
    within = [pair for pair in within if pair[0].budget <= limit]
    if not within:
        return None

    def key(pair: tuple[Outcome, Selection]) -> tuple[float, float, float]:
        found = pair[0]
        return round(found.regret, 4), -round(found.top_kept, 6), found.budget

    return min(within, key=key)[1]


def mean_outcome(sets: Sequence[CurveSet], selection: Selection) -> Outcome:
    found = [known_outcome(curves, selection) for curves in sets]
    return Outcome(
        budget=fmean(one.budget for one in found),
        regret=fmean(one.regret for one in found),
        top_kept=fmean(one.top_kept for one in found),
    )


def of_other_tasks(one: CurveSet, sets: Iterable[CurveSet]) -> list[CurveSet]:
    """Another seed of a task is no other task."""
    return [each for each in sets if not is_same_task(each.task, one.task)]


def of_other_data(name: str, sets: Iterable[CurveSet]) -> list[CurveSet]:
    """Whatever the amount of it, the batch sizes and the backbone."""
    return [each for each in sets if each.name.replace("_", "-") != name]


def all_recordings() -> tuple[CurveSet, ...]:
    """All full grids: those judged on, their older recordings, and one of large batches."""
    return tuple(
        curves
        for name in ("recorded", "repeated", "batches")
        for curves in recorded_sets(RECORDED.with_name(name))
    )


@cache
def known_outcome(curves: CurveSet, selection: Selection) -> Outcome:
    return outcome(curves, selection)


@cache
def _agreement(curves: CurveSet, handicap: float) -> float:
    third = np.argsort(curves.best, kind="stable")[: math.ceil(_THIRD * len(curves.best))]
    found = []
    for share in DOUBLINGS[:3]:
        losses = curves.val[third, math.ceil(round(share * curves.num_reports, 9)) - 1]
        compared = losses * np.exp(-handicap * lacks(curves, share)[third])
        found.append(spearman(compared, curves.best[third]))
    return fmean(found)
