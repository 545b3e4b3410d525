"""Figure 16: how long a warm-up must be.

The paper: warm-ups of 1 to 20 % on seven pairs of model and data. At 2 % the rank correlation of
early and final losses is below 0.5; at 5 % it is above 0.7, 60 to 80 % of the true best quarter of
the jobs are kept, and the best job in all seven.

Here: the same three measures on full grids of 60 jobs. Jobs are ranked by their validation loss at
the end of the warm-up, and by their best loss at the end of all. They report each 2.5 % of their
samples, so nothing can be said of a warm-up of 1 %.

The paper against itself: its experiments warm up for 5 % of the steps, the listing of its API for
10 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, verdict_over
from experiments.grids.curve_sets import (
    RECORDED,
    Array,
    CurveSet,
    by_seed,
    generated_sets,
    longer_grids,
    origins,
    recorded_sets,
)
from experiments.grids.judging import spearman, top_quarter
from experiments.grids.same_task import seed_of, told_seeds

__all__ = ["Foresight", "exhibit", "foresight"]

_SHARES = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2)  # the paper: 1 to 20 %; reports come each 2.5 %
_GENERATED = 20
# Paper, figure 16: at 5 % in all seven pairs of model and data.
_PAPER_RHO, _PAPER_COVERAGE = 0.7, (0.6, 0.8)
_PANELS = (
    "Spearman, warm-up against end",
    "true best quarter kept",
    "best job kept: always (full), or how often",
)


@dataclass(frozen=True, slots=True)
class Foresight:
    """At one share of the warm-up: rank correlation, coverage of the best quarter, the best."""

    rho: float
    coverage: float
    captured: float  # 0 or 1
    shortfall: float  # loss of the best job kept over the best of all, relative


class Row(NamedTuple):
    """Means over seeds, or over generated tasks."""

    name: str
    share: float
    rho: float
    coverage: float
    captured: float
    shortfall: float
    deviation: float | None  # of rho


_Band = tuple[tuple[float, float, float, float], Array | None]


def foresight(curves: CurveSet, share: float) -> Foresight:
    """Ranks by the validation loss of the first report at or after the share of a job."""
    column = int(np.ceil(round(share * curves.num_reports, 9))) - 1
    early = np.where(np.isfinite(curves.val[:, column]), curves.val[:, column], np.inf)
    best = curves.best
    kept = np.argsort(early, kind="stable")[: -(-len(early) // 4)]
    top = top_quarter(best)
    is_finite = np.isfinite(best) & np.isfinite(early)
    return Foresight(
        rho=spearman(early[is_finite], best[is_finite]),
        coverage=len(np.intersect1d(kept, top)) / len(top),
        captured=float(int(np.argmin(best)) in kept),
        shortfall=float(best[kept].min() / best.min() - 1),
    )


def exhibit(folder: Path = RECORDED) -> Exhibit:
    groups, generated = by_seed(recorded_sets(folder)), generated_sets(_GENERATED)
    bands: dict[str, list[_Band]] = {
        group[0].name: [_band(group, share) for share in _SHARES] for group in groups
    }
    names = list(bands)
    drawn = f"generated, mean of {_GENERATED}"
    bands[drawn] = [_band(generated, share) for share in _SHARES]
    rows = [
        Row(name, share, *mean, None if spread is None else spread[0])
        for name, found in bands.items()
        for share, (mean, spread) in zip(_SHARES, found, strict=True)
    ]
    figure, panels = panels_of(3.4, 3)
    for number, axes in enumerate(panels[:2]):
        _draw(axes, number, bands)
    _draw_captured(panels[2], rows)
    panels[0].legend(fontsize=7, frameon=False, labelcolor=INK)
    at_5 = [row for row in rows if row.share == 0.05]
    seeds = [(group[0].name, [seed_of(curves.task) for curves in group]) for group in groups]
    return Exhibit(
        found=(
            *(
                f"{row.name}: at 5 % rho {row.rho:.2f}, {row.coverage:.0%} of the best quarter "
                f"kept, best job kept in {row.captured:.0%}; the best of the kept is "
                f"{row.shortfall:.2%} behind."
                for row in at_5
            ),
            *_told_sooner([row for row in rows if row.name in names]),
            *(_told_longer(curves) for curves in longer_grids(folder)),
        ),
        verdict=verdict_over([_holds(row) for row in at_5 if row.name in names]),
        gist=_gist([row for row in at_5 if row.name in names]),
        table=Table(
            (
                "task", "warm-up", "rho", "best quarter kept", "best kept", "shortfall",
                "deviation of rho",
            ),
            tuple(rows),
        ),
        logs=origins(
            (*(c for group in groups for c in group), *longer_grids(folder), *generated)
        ),
        seeds=f"{told_seeds(seeds)} Generated: {_GENERATED} tasks; bands are one standard "
        "deviation over seeds or tasks.",
        figure=figure,
    )  # fmt: skip


def _gist(rows: Sequence[Row]) -> str:
    if not rows:
        return "Nothing is recorded."
    rho, coverage = [row.rho for row in rows], [row.coverage for row in rows]
    return (
        f"After 5 % of the samples the order of the jobs correlates with the final one by "
        f"{min(rho):.2f} to {max(rho):.2f} (paper above 0.7), and {min(coverage):.0%} to "
        f"{max(coverage):.0%} of the best quarter are kept (paper 60 to 80 %). The best job is "
        f"kept in every search on {sum(row.captured == 1 for row in rows)} of {len(rows)} tasks "
        "(paper all)."
    )


def _told_sooner(rows: Sequence[Row]) -> Iterator[str]:
    """What the first report says already."""
    rho = [row.rho for row in rows if row.share == _SHARES[0]]
    if rho:
        yield (
            f"At {_SHARES[0]:.1%} rho is {min(rho):.2f} to {max(rho):.2f} (paper, at 2 %, below "
            "0.5): here the order is there sooner."
        )


def _told_longer(curves: CurveSet) -> str:
    """Where jobs train for more epochs than those of the table: the warm-up is longer as well."""
    found = foresight(curves, 0.05)
    return (
        f"{curves.name} (longer than in the table): at 5 % rho {found.rho:.2f}, "
        f"{found.coverage:.0%} of the best quarter kept, the best job "
        f"{'kept' if found.captured else 'stopped'}."
    )


def _holds(row: Row) -> bool:
    return row.rho > _PAPER_RHO and row.coverage >= _PAPER_COVERAGE[0] and row.captured == 1.0


def _band(sets: Sequence[CurveSet], share: float) -> _Band:
    """Means of the four measures, and their deviations where there are two sets or more."""
    found = [foresight(curves, share) for curves in sets]
    table = np.array([(one.rho, one.coverage, one.captured, one.shortfall) for one in found])
    rho, coverage, captured, shortfall = map(float, table.mean(axis=0))
    spread = table.std(axis=0, ddof=1) if len(found) > 1 else None
    return (rho, coverage, captured, shortfall), spread


def _draw(axes: Axes, number: int, bands: dict[str, list[_Band]]) -> None:
    for (name, found), colour in zip(bands.items(), PALETTE, strict=False):
        middle = np.array([mean[number] for mean, _ in found])
        style = "--" if name.startswith("generated") else "-"
        axes.plot(_SHARES, middle, style, marker="o", ms=3, color=colour, label=name)
        spreads = [spread[number] for _, spread in found if spread is not None]
        if spreads:
            low, high = middle - np.array(spreads), middle + np.array(spreads)
            limits = np.clip(low, 0, 1), np.clip(high, 0, 1)
            axes.fill_between(_SHARES, *limits, color=colour, alpha=0.12, lw=0)
    paper = ((_PAPER_RHO, _PAPER_RHO), _PAPER_COVERAGE)[number]
    axes.plot((0.05, 0.05), paper, color=MUTED, lw=4, alpha=0.5, marker="_", ms=12)
    leader = {"arrowstyle": "-", "color": MUTED, "lw": 0.6}
    axes.annotate("paper, 5 %", (0.05, paper[0]), (0.07, 0.44), fontsize=7, color=MUTED,
                  arrowprops=leader)  # fmt: skip
    axes.set_title(_PANELS[number], fontsize=9, color=INK)
    axes.set_xlabel("warm-up, share of a job's samples")
    axes.set_ylim(0, 1.05)
    axes.grid(axis="y", color=GRID)


def _draw_captured(axes: Axes, rows: Sequence[Row]) -> None:
    """A row for each task: full where its best job is kept, empty where it is stopped."""
    names = list(dict.fromkeys(row.name for row in rows))
    for place, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        for row in (row for row in rows if row.name == name):
            at, captured = _SHARES.index(row.share), row.captured
            face = colour if captured == 1 else "white"
            axes.scatter(at, place, s=60, facecolor=face, edgecolor=colour)
            if captured < 1:
                axes.text(at, place + 0.3, f"{captured:.0%}", ha="center", va="top", fontsize=7)
    axes.set_yticks(range(len(names)), [])
    axes.set_ylim(len(names) - 0.3, -0.5)
    axes.set_xticks(range(len(_SHARES)), [f"{share:g}" for share in _SHARES], fontsize=8)
    axes.set_xlim(-0.5, len(_SHARES) - 0.5)
    axes.set_title(_PANELS[2], fontsize=9, color=INK)
    axes.set_xlabel("warm-up, share of a job's samples")
