"""Figure 14: does the best adapter survive early exit, at each batch size?

The paper: Llama-8B on GSM8K, per-adapter batch 1, 2, 4 and 8: accuracy and best validation loss of
the best configuration with and without early exit; with it the best is kept, or is better. No
numbers are printed.

Here: the jobs of each batch size as a task of their own, once to their ends and once under `alto`:
best validation loss of both. No accuracies.
"""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from alto_policy.policies.alto import AltoSettings
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.curve_sets import CurveSet, origins, recorded_sets, shown_sets
from experiments.exhibit import Exhibit, Table, verdict_over
from experiments.judging import judge
from experiments.table_backend import play_policy

__all__ = ["exhibit", "of_batch_size"]

_TOLERANCE = 0.005
_TICKS = (0, 0.1, 1, 10, 100, 1000)


def of_batch_size(curves: CurveSet, size: int) -> CurveSet:
    """The jobs of that batch size alone."""
    rows = [
        row
        for row, job in enumerate(curves.task.jobs)
        if job.hyperparameters.samples_per_step == size
    ]
    jobs = tuple(curves.task.jobs[row] for row in rows)
    return replace(
        curves,
        task=replace(curves.task, jobs=jobs),
        train=curves.train[rows],
        val=curves.val[rows],
    )


def exhibit() -> Exhibit:
    sets = shown_sets(4)
    rows: list[tuple[str, int, int, float, float, float]] = []
    for curves in sets:
        for size in sorted({job.hyperparameters.samples_per_step for job in curves.task.jobs}):
            part = of_batch_size(curves, size)
            found = judge(part, play_policy(part, AltoSettings()))
            best = float(part.best.min())
            rows.append(
                (
                    curves.name,
                    size,
                    len(part.task.jobs),
                    best,
                    best * (1 + found.regret),
                    found.budget,
                )
            )
    lost = [row[4] / row[3] - 1 for row in rows]
    kept = sum(loss <= _TOLERANCE for loss in lost)
    holds = [
        all(row[4] / row[3] - 1 <= _TOLERANCE for row in rows if row[0] == curves.name)
        for curves in sets
    ]
    return Exhibit(
        verdict=verdict_over(holds if recorded_sets() else ()),
        found=(
            f"Within 0.5 % of the best in {kept} of {len(rows)} cells; exactly the best in "
            f"{sum(loss == 0 for loss in lost)}; at worst {max(lost):.2%} behind.",
            "It cannot be better than without exits here: both see the same curves. Where the "
            "paper "
            "finds it better, that is another seed.",
        ),
        table=Table(
            ("task", "batch", "jobs", "best without exits", "best with exits", "budget"),
            tuple(rows),
        ),
        logs=origins(sets),
        seeds="One seed a job, no error bars.",
        figure=_draw(sets, rows),
    )


def _draw(
    sets: tuple[CurveSet, ...], rows: list[tuple[str, int, int, float, float, float]]
) -> Figure:
    figure, panels = panels_of(3.0, min(4, len(sets)))
    for axes, curves in zip(panels, sets, strict=False):
        own = [row for row in rows if row[0] == curves.name]
        for place, row in enumerate(own):
            losses = of_batch_size(curves, row[1]).best
            grey = 100 * (losses[np.isfinite(losses)] / row[3] - 1)
            axes.scatter([place] * len(grey), grey, s=10, color=MUTED, alpha=0.5, lw=0)
            axes.scatter(place, 100 * (row[4] / row[3] - 1), s=34, color=PALETTE[0], zorder=3)
        axes.axhline(100 * _TOLERANCE, color=PALETTE[4], lw=1, ls=":")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(-0.02, 2000)
        axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS] if axes is panels[0] else [])
        axes.minorticks_off()
        axes.set_xticks(range(len(own)), [str(row[1]) for row in own])
        axes.set_title(curves.name, fontsize=8, color=INK)
        axes.set_xlabel("batch size")
        axes.grid(axis="y", color=GRID)
    marks = (
        panels[0].scatter([], [], s=10, color=MUTED, alpha=0.5, label="a job, without exits"),
        panels[0].scatter([], [], s=34, color=PALETTE[0], label="the best with exits"),
        panels[0].plot([], [], color=PALETTE[4], lw=1, ls=":", label="0.5 %")[0],
    )
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    panels[0].set_ylabel("loss above the best without exits, %")
    return figure
