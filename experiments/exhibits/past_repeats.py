"""The same grid, recorded twice: what a difference of losses means.

The paper: one run of each configuration; error bars are not given.

Here: full grids of the same jobs, data and seeds, recorded twice on an H100, by kernels that add up
in another order: the first recordings (`traces/repeated`) are the older ones, and whatever was
recorded twice since then by the same kernels came out the same to the last digit, whichever the
host and the day (of batches of 16 to 64 not the jobs that diverge). Roundings of bfloat16 differ
with the shapes of passes, and training carries them on; they differ as much between a search with
exits and its full grid. *Apart*: the best losses of a job in both, relative; *winner behind*: how
far the one recording's best job is behind the best of the other, the larger of both ways. Regrets
below that are not told apart from roundings.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.grids.curve_sets import (
    RECORDED,
    Array,
    CurveSet,
    origins,
    recorded_logs,
    recorded_sets,
)
from experiments.grids.judging import spearman, top_quarter
from experiments.grids.same_task import is_repeated, seed_of

__all__ = ["Row", "compared", "exhibit", "pairs_of"]

_REPEATED = RECORDED.with_name("repeated")


class Row(NamedTuple):
    task: str
    jobs: int
    apart: float  # the median job
    best_quarter_apart: float
    rank_correlation: float
    winner_behind: float


def pairs_of(folder: Path, repeated: Path) -> Iterator[tuple[CurveSet, CurveSet]]:
    """The newer recording, and the older one of the same jobs."""
    for old in recorded_sets(repeated):
        for new in recorded_sets(folder):
            if is_repeated(new.task, old.task):
                yield new, old


def compared(new: CurveSet, old: CurveSet) -> Row:
    ours, theirs = new.best, old.best
    is_finite = np.isfinite(ours) & np.isfinite(theirs)
    apart = np.abs(ours / theirs - 1)
    top = [row for row in top_quarter(ours) if is_finite[row]]
    return Row(
        new.name,
        len(ours),
        median(apart[is_finite]),
        median(apart[top]),
        spearman(ours[is_finite], theirs[is_finite]),
        max(_behind(ours, theirs), _behind(theirs, ours)),
    )


def _commit(curves: CurveSet, folder: Path) -> str:
    (log,) = (log for path, log in recorded_logs(folder) if path == curves.origin)
    return dict(log.header.made_by).get("commit", "") if log.header else ""


def exhibit(folder: Path = RECORDED, repeated: Path = _REPEATED) -> Exhibit:
    pairs = list(pairs_of(folder, repeated))
    names = [new.name for new, _ in pairs]
    rows = [
        compared(new, old)._replace(task=f"{new.name}, seed {seed_of(new.task)}")
        if names.count(new.name) > 1
        else compared(new, old)
        for new, old in pairs
    ]
    figure, panels = panels_of(3.0, max(1, len(pairs)))
    for axes, row, (new, old) in zip(panels, rows, pairs, strict=False):
        order = np.argsort(old.best, kind="stable")
        above = 100 * (new.best / old.best - 1)
        axes.scatter(range(1, len(order) + 1), above[order], s=10, color=PALETTE[0])
        axes.axhline(0, color=INK, lw=0.8)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(-100, 300)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(row.task.replace(", ", "\n"), fontsize=8, color=INK)
        axes.set_xlabel("rank, first recording")
        axes.grid(axis="y", color=GRID)
    panels[0].set_ylabel("second recording's loss above, %")
    return Exhibit(
        verdict=Verdict.BEYOND if rows else Verdict.CANNOT,
        gist=_gist(rows) if rows else "Nothing was recorded twice.",
        found=tuple(
            f"{row.task}: the median job is {row.apart:.2%} apart, one of the best quarter "
            f"{row.best_quarter_apart:.2%}; the winner of one recording is up to "
            f"{row.winner_behind:.2%} behind in the other; ranks correlate by "
            f"{row.rank_correlation:.3f}."
            for row in rows
        ),
        table=Table(
            (
                "task", "jobs", "apart", "best quarter apart", "rank correlation",
                "winner behind", "first", "second",
            ),
            tuple(
                (*row, _commit(old, repeated), _commit(new, folder))
                for row, (new, old) in zip(rows, pairs, strict=True)
            ),
        ),
        logs=origins(curves for pair in pairs for curves in pair),
        seeds="Two recordings of one seed, no error bars.",
        figure=figure,
    )  # fmt: skip


def _gist(rows: Sequence[Row]) -> str:
    apart, behind = [r.best_quarter_apart for r in rows], [r.winner_behind for r in rows]
    return (
        f"Roundings alone change the loss of a job of the best quarter by {min(apart):.2%} to "
        f"{max(apart):.2%} in the median. The winner of one recording is up to {max(behind):.2%} "
        "behind in the other, so smaller regrets than that may be luck."
    )


def _behind(chosen_by: Array, judged_by: Array) -> float:
    return float(judged_by[int(np.argmin(chosen_by))] / judged_by.min() - 1)
