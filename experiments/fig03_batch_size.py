"""Figure 3: are small batches best?

The paper: metric against batch size 1 to 1,024. Validation loss moves within 0.42-0.45 (GSM8K),
0.708-0.716 (Tulu-3), 1.30-1.35 (OpenThoughts3); the best is at 16 or below, and worse beyond 32.

Here: the best validation loss over learning rates for each batch size of the grids' and each rank,
at equal samples, and at a tenth, a third and the whole of the budget: is the best batch the same
for every rank and amount of training? The paper's claim is about 16 and 32: it is judged on tasks
whose searches with such batches lie in `traces/batches`, and cannot be tested on the others.

The paper against itself: it cites arXiv 2602.09492, by which the best batch is not small everywhere
but depends on rank, data and model.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from alto_policy.types import JobId
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.curve_sets import RECORDED, CurveSet, origins, recorded_sets, shown_sets
from experiments.exhibit import Exhibit, Table, verdict_over

__all__ = ["best_by_batch", "exhibit", "holds_claim", "joined"]

_SHARES = (0.1, 0.33, 1.0)  # of a job's samples: how much data
_SMALL, _LARGE = 16, 32  # the paper: the best is not above the first, and it is worse from here on
_BATCHES = RECORDED.with_name("batches")


def best_by_batch(curves: CurveSet, share: float, rank: int | None = None) -> dict[int, float]:
    """Least validation loss up to the share of the samples, over learning rates, by batch size."""
    columns = max(1, round(share * curves.num_reports))
    known = np.where(np.isfinite(curves.val), curves.val, np.inf)[:, :columns].min(axis=1)
    best: dict[int, float] = {}
    for job, loss in zip(curves.task.jobs, known, strict=True):
        chosen = job.hyperparameters
        if rank is None or chosen.rank == rank:
            size = chosen.samples_per_step
            best[size] = min(best.get(size, np.inf), float(loss))
    return dict(sorted(best.items()))


def joined(curves: CurveSet, others: Sequence[CurveSet]) -> CurveSet:
    """With the jobs of other searches of the same name, which report as often."""
    same = [curves, *(other for other in others if other.name == curves.name)]
    jobs = tuple(
        replace(job, id=JobId(f"{job.id}-{number}"))
        for number, each in enumerate(same)
        for job in each.task.jobs
    )
    return replace(
        curves,
        origin="; ".join(each.origin for each in same),
        task=replace(curves.task, jobs=jobs),
        train=np.concatenate([each.train for each in same]),
        val=np.concatenate([each.val for each in same]),
    )


def holds_claim(curves: CurveSet) -> bool | None:
    """Whether the paper's claim does; None where no batch was large enough."""
    best = best_by_batch(curves, 1.0)
    if max(best) < _LARGE:
        return None
    least = min(best.values())
    return min(best, key=best.__getitem__) <= _SMALL and all(
        loss > least for size, loss in best.items() if size >= _LARGE
    )


def exhibit() -> Exhibit:
    larger = recorded_sets(_BATCHES)
    sets = tuple(joined(curves, larger) for curves in shown_sets(4))
    rows: list[tuple[str, str, float, int, float]] = []
    for curves in sets:
        ranks = sorted({job.hyperparameters.rank for job in curves.task.jobs})
        for rank in (None, *ranks):
            for share in _SHARES:
                best = best_by_batch(curves, share, rank)
                winner = min(best, key=best.__getitem__)
                loss = max(best.values()) / min(best.values()) - 1
                rows.append(
                    (curves.name, "all" if rank is None else str(rank), share, winner, loss)
                )
    whole = [row for row in rows if row[1] == "all" and row[2] == 1.0]
    by_cell = [row[3] for row in rows if row[1] != "all"]
    smallest = min(by_cell)
    return Exhibit(
        verdict=verdict_over([held for held in map(holds_claim, sets) if held is not None]),
        found=(
            *(
                f"{row[0]}: batch {row[3]} is best; the worst batch {row[4]:.2%} behind."
                for row in whole
            ),
            f"Over tasks, ranks and amounts of training the best batch is {smallest} in "
            f"{by_cell.count(smallest)} of {len(by_cell)} cells.",
            "Each batch size has its own best learning rate in the grid; without that, large "
            "batches "
            "look worse than they are.",
        ),
        table=Table(("task", "rank", "trained", "best batch", "worst above best"), tuple(rows)),
        logs=origins(sets),
        seeds="One seed a job: differences of a tenth of a percent are within the noise of seeds.",
        figure=_draw(sets),
    )


def _draw(sets: tuple[CurveSet, ...]) -> Figure:
    figure, panels = panels_of(3.0, min(4, len(sets)))
    for axes, curves in zip(panels, sets, strict=False):
        for share, colour in zip(_SHARES, PALETTE, strict=False):
            best = best_by_batch(curves, share)
            heights = np.array(list(best.values()))
            axes.plot(
                [str(size) for size in best],
                100 * (heights / heights.min() - 1),
                marker="o",
                ms=3,
                color=colour,
                label=f"{share:.0%} of the samples",
            )
        axes.set_title(curves.name, fontsize=8, color=INK)
        axes.set_xlabel("batch size")
        axes.grid(axis="y", color=GRID)
    panels[0].set_ylabel("loss above the best batch's, %")
    panels[0].legend(fontsize=7, frameon=False)
    return figure
