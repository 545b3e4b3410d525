"""Figure 7: the winner is among the first at the end of the warm-up.

The paper: rank by best validation loss before the end of the warm-up (5 %) against the final rank,
on GSM8K, Tulu-3 and OpenThoughts3. The final best is always in the first quarter.

Here: the same of full grids of 60 jobs each. A panel has the jobs of all seeds of its task, and a
star for the best of each seed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from alto_runs.report.drawing import INK, MUTED, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, verdict_over
from experiments.grids.curve_sets import (
    RECORDED,
    CurveSet,
    by_seed,
    origins,
    recorded_sets,
    shown_sets,
)
from experiments.grids.same_task import seed_of, told_seeds

__all__ = ["early_ranks", "exhibit"]

_WARMUP, _KEEP = 0.05, 0.25  # paper, section 5
_SHOWN = 4
_GREY = "#A9B1BB"


def early_ranks(curves: CurveSet, share: float = _WARMUP) -> tuple[list[int], list[int]]:
    """Rank of each job by its best loss up to the share of its samples, and by that of all; from 1.

    Jobs without a finite loss come last, in the order of the task.
    """
    column = int(np.ceil(round(share * curves.num_reports, 9)))
    known = np.where(np.isfinite(curves.val), curves.val, np.inf)
    early, final = known[:, :column].min(axis=1), known.min(axis=1)
    return _ranks(early), _ranks(final)


def exhibit(folder: Path = RECORDED) -> Exhibit:
    groups = by_seed(shown_sets(_SHOWN, folder))
    rows = [_row(curves, len(group) > 1) for group in groups for curves in group]
    holds = [all(_is_kept(curves) for curves in group) for group in groups]
    seeds = [(group[0].name, [seed_of(curves.task) for curves in group]) for group in groups]
    is_single = all(len(group) == 1 for group in groups)
    return Exhibit(
        found=(
            *(
                f"{name}: the final best was number {early} of {count} at 5 %; {kept} are kept."
                for name, early, kept, count in rows
            ),
            f"It was among those kept on {sum(holds)} of {len(holds)} tasks"
            f"{'' if is_single else ', of every seed'}; in the paper always.",
        ),
        verdict=verdict_over(holds if recorded_sets(folder) else ()),
        gist=f"The job that is best in the end is kept in {_kept_count(groups)} searches; on "
        f"{sum(holds)} of {len(holds)} tasks it is in all of their searches. In the paper always.",
        table=Table(("task", "winner's rank at 5 %", "kept", "jobs"), tuple(rows)),
        logs=origins(curves for group in groups for curves in group),
        seeds=told_seeds(seeds),
        figure=_draw(groups),
    )


def _row(curves: CurveSet, is_told: bool) -> tuple[str, int, int, int]:
    """Name (with the seed, if that is told), the winner's early rank, how many are kept of all."""
    early, final = early_ranks(curves)
    name = f"{curves.name}, seed {seed_of(curves.task)}" if is_told else curves.name
    return name, early[final.index(1)], -(-len(early) // 4), len(early)


def _is_kept(curves: CurveSet) -> bool:
    _, early, kept, _ = _row(curves, False)
    return early <= kept


def _kept_count(groups: Sequence[Sequence[CurveSet]]) -> str:
    kept = [_is_kept(curves) for group in groups for curves in group]
    return f"{sum(kept)} of {len(kept)}"


def _draw(groups: Sequence[Sequence[CurveSet]]) -> Figure:
    figure, panels = panels_of(3.2, len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for curves in group:
            early, final = early_ranks(curves)
            kept = -(-len(early) // 4)
            is_kept = np.array(early) <= kept
            for chosen, colour, label in (
                (is_kept, PALETTE[0], "kept"),
                (~is_kept, _GREY, "stopped"),
            ):
                places = np.array(early)[chosen], np.array(final)[chosen]
                axes.scatter(*places, s=14, color=colour, label=label)
            best = early[final.index(1)]
            axes.scatter(best, 1, s=70, marker="*", color=PALETTE[4], zorder=3, label="final best")
        axes.axvline(kept + 0.5, color=MUTED, lw=1, ls=":", label="the first quarter")
        axes.set_title(group[0].name, fontsize=9, color=INK)
        axes.set_xlabel("rank at 5 % of the samples")
    panels[0].set_ylabel("final rank")
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(
        once.values(), once, loc="outside upper center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _ranks(losses: np.ndarray) -> list[int]:
    ranks = np.empty(len(losses), dtype=int)
    ranks[np.argsort(losses, kind="stable")] = np.arange(1, len(losses) + 1)
    return [int(rank) for rank in ranks]
