"""Figure 3: are small batches best?

The paper: metric against batch size 1 to 1,024. Validation loss moves within 0.42-0.45 (GSM8K),
0.708-0.716 (Tulu-3), 1.30-1.35 (OpenThoughts3); the best is at 16 or below, and worse beyond 32.

Here: the best validation loss over learning rates for each batch size of the grids' and each rank,
at equal samples, and at a tenth, a third and the whole of the budget: is the best batch the same
for every rank and amount of training? Batches beyond 8 were not run, so that the paper's claim,
which is about 16 and 32, cannot be tested.

The paper against itself: it cites arXiv 2602.09492, by which the best batch is not small everywhere
but depends on rank, data and model.
"""

import numpy as np
from matplotlib.figure import Figure

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.curve_sets import CurveSet, origins, shown_sets
from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["best_by_batch", "exhibit"]

_SHARES = (0.1, 0.33, 1.0)  # of a job's samples: how much data


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


def exhibit() -> Exhibit:
    sets = shown_sets(4)
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
        verdict=Verdict.CANNOT,
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
