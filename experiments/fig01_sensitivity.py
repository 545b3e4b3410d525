"""Figure 1: how much hyper-parameters matter.

The paper: best validation loss over 165 configurations of Llama-8B: the worst is 11.0 times the
best on GSM8K, 10.8 on Tulu-3, 5.1 on OpenThoughts3. GSM8K accuracy spreads over 42.8 points (Llama)
and 73.9 (Qwen), DPO reward accuracy over 26.7.

Here: best validation loss of each job of the full grids, and the final losses of 548 runs of a real
sweep over 35 models (`traces/sweeps`; 80 runs that its authors call diverged are not in it). No
accuracies: nothing was scored by generating answers.

The paper against itself: the best accuracies of figure 1 (42.8 and 73.9 points above a worst of
nearly 0) are not those of figure 10 (49.5 and 62.6).
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of, tell_values
from alto_sim.curves_fit import read_sweep
from experiments.curve_sets import RECORDED, origins, recorded_sets, shown_sets
from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit", "spread"]

_SWEEP = RECORDED.parent / "sweeps" / "tinker_sft_sweep.csv"
_SHOWN = 1.25  # of the sweep: loss over the best
_PAPER_LEAST = 5.1  # times the best, of its three data sets


def spread(losses: Sequence[float]) -> tuple[float, float]:
    """The worst finite loss over the best, and the median over the best."""
    finite = [loss for loss in losses if np.isfinite(loss)]
    return max(finite) / min(finite), median(finite) / min(finite)


def exhibit() -> Exhibit:
    sets = shown_sets(4)
    losses = {curves.name: [float(loss) for loss in curves.best] for curves in sets}
    by_model = _sweep(_SWEEP)
    rows: list[tuple[str, int, float, float]] = [
        (name, len(found), *spread(found)) for name, found in losses.items()
    ]
    ratios = [spread(found) for found in by_model.values()]
    worst, middle = (median(column) for column in zip(*ratios, strict=True))
    usual = [ratio for ratio, _ in ratios if ratio <= _SHOWN]
    count = sum(map(len, by_model.values()))
    rows.append((f"sweep, median of {len(by_model)} models", count, worst, middle))
    return Exhibit(
        verdict=_verdict([row[2] for row in rows[:-1]]),
        found=(
            *(f"{row[0]}: worst {row[2]:.2f} times the best, median {row[3]:.3f}." for row in rows),
            f"How large the ratio is depends on how far the grid reaches: in {len(usual)} of the "
            f"sweep's {len(by_model)} models the worst is at most {max(usual) - 1:.0%} behind, in "
            f"one {max(worst for worst, _ in ratios):.1f} times the best (cut off in the picture). "
            "The median tells what tuning wins over a guess.",
        ),
        table=Table(("task", "jobs", "worst over best", "median over best"), tuple(rows)),
        logs=(*origins(sets), "`traces/sweeps/tinker_sft_sweep.csv`"),
        seeds="One seed a job, no error bars.",
        figure=_draw(losses, by_model),
    )


def _sweep(path: Path) -> dict[str, list[float]]:
    """Final losses by model."""
    found: dict[str, list[float]] = {}
    for run in read_sweep(path):
        found.setdefault(run.task, []).append(run.loss)
    return found


def _verdict(ratios: Sequence[float]) -> Verdict:
    """Losses only, so that more than a part of it cannot be reproduced."""
    if not recorded_sets():
        return Verdict.CANNOT
    return Verdict.PARTLY if min(ratios) >= _PAPER_LEAST / 2 else Verdict.NOT_REPRODUCED


def _draw(losses: dict[str, list[float]], by_model: dict[str, list[float]]) -> Figure:
    figure, (ours, sweep) = panels_of(3.2, 2)
    for (name, found), colour in zip(losses.items(), PALETTE, strict=False):
        ordered = np.sort(np.array(found)[np.isfinite(found)])
        ours.plot(np.arange(1, len(ordered) + 1), ordered / ordered[0], color=colour, label=name)
    for found in by_model.values():
        ordered = np.sort(np.array(found))
        sweep.plot(
            np.arange(1, len(ordered) + 1), ordered / ordered[0], color=PALETTE[0], alpha=0.35, lw=1
        )
    ours.set_yscale("log")
    tell_values(ours.yaxis)
    sweep.set_ylim(0.99, _SHOWN)
    ours.set_title("full grids", fontsize=9, color=INK)
    sweep.set_title("a real sweep of 35 models, a line for each", fontsize=9, color=INK)
    ours.legend(fontsize=7, frameon=False)
    ours.set_ylabel("best validation loss over the task's best")
    sweep.set_ylabel("final loss over the model's best")
    for axes in (ours, sweep):
        axes.set_xlabel("jobs, best first")
        axes.grid(axis="y", color=GRID)
    return figure
