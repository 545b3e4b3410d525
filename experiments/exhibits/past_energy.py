"""What a winner costs: GPU-seconds, energy and money to the best adapter, for each system.

The paper: time alone.

Here: the searches of figure 9 (one H100, simulated from measured passes, losses of the grids): GPU-
seconds until the winner's best report and until the search has ended. Energy is bounded from above
by the card's 700 W (its data sheet; power was not measured), money is at 2.50 dollars an hour, an
assumed price. LoRAFusion's search is computed, as in figure 9. A stop before the end cannot know
that it has the winner: the time to it is known afterwards.
"""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of, tell_values
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.exhibits.search_costs import ASHA, BACKBONES, PEFT, SYSTEMS, search_cost
from experiments.grids.curve_sets import by_seed, origins, shown_sets
from experiments.grids.same_task import told_count

__all__ = ["exhibit"]

_WATTS, _DOLLARS_PER_HOUR = 700.0, 2.5


def exhibit() -> Exhibit:
    sets = shown_sets(3)
    rows: list[tuple[str, str, float, float, float, float]] = []
    for backbone in BACKBONES:
        for system in SYSTEMS:
            costs = [search_cost(curves, backbone, system) for curves in sets]
            seconds = fmean(cost.seconds for cost in costs)
            rows.append(
                (
                    backbone,
                    system,
                    fmean(cost.to_best for cost in costs),
                    seconds,
                    seconds * _WATTS / 3.6e6,
                    seconds / 3600 * _DOLLARS_PER_HOUR,
                )
            )
    by_name = {(row[0], row[1]): row for row in rows}
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist="Dollars of a search with PEFT, the same under Ray Tune's ASHA, and with `fifo`, "
        "`alto` and `alto+`: "
        + "; ".join(f"{backbone} {_prices(by_name, backbone)}" for backbone in BACKBONES)
        + ".",
        found=tuple(
            f"{backbone}: {_text(by_name[backbone, PEFT])} with PEFT one after another, "
            f"{_text(by_name[backbone, ASHA])} under Ray Tune's ASHA, "
            f"{_text(by_name[backbone, 'alto'])} with alto, {_text(by_name[backbone, 'alto+'])} "
            "with alto+."
            for backbone in BACKBONES
        ),
        table=Table(
            ("backbone", "system", "GPU-s to the best", "GPU-s", "kWh at most", "dollars"),
            tuple(rows),
        ),
        logs=(
            *("`kernels/profiles/h100.jsonl`", "`tuners/results.csv`", "`SPEED.md`"),
            *origins(sets),
        ),
        seeds=f"Means over {told_count(len(sets), len(by_seed(sets)))}.",
        figure=_draw(rows),
        shown_rows=len(rows),
    )


def _text(row: tuple[str, str, float, float, float, float]) -> str:
    return f"{row[4]:.2g} kWh at most and {row[5]:.2f} dollars"


def _prices(rows: Mapping[tuple[str, str], tuple[Any, ...]], backbone: str) -> str:
    return ", ".join(f"{rows[backbone, s][5]:.2f}" for s in (PEFT, ASHA, "fifo", "alto", "alto+"))


def _draw(rows: list[tuple[str, str, float, float, float, float]]) -> Figure:
    figure, panels = panels_of(3.4, len(BACKBONES))
    for axes, backbone in zip(panels, BACKBONES, strict=True):
        own = [row for row in rows if row[0] == backbone]
        names = [row[1] for row in own]
        bests, ends = [row[2] for row in own], [row[3] for row in own]
        axes.hlines(names, bests, ends, color=GRID, lw=3, zorder=1)
        axes.scatter(bests, names, s=30, color=PALETTE[0], label="to the best adapter", zorder=2)
        axes.scatter(
            ends, names, s=30, color=PALETTE[1], label="to the end of the search", zorder=2
        )
        for name, best, end in zip(names, bests, ends, strict=True):
            for value, side, shift in ((best, "right", -5), (end, "left", 5)):
                axes.annotate(
                    f"{value:,.0f}", (value, name), (shift, 0), textcoords="offset points",
                    ha=side, va="center", fontsize=7, color=INK,
                )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(min(bests) / 2.5, max(ends) * 3)
        tell_values(axes.xaxis, (1,))
        axes.invert_yaxis()
        axes.set_title(backbone, fontsize=9, color=INK)
        axes.set_xlabel("GPU-seconds")
        axes.grid(axis="x", color=GRID)
        if axes is not panels[0]:
            axes.set_yticks([])
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return figure
