"""What a winner costs: GPU-seconds, energy and money to the best adapter, for each system.

The paper: time alone.

Here: the searches of figure 9 (one H100, simulated from measured passes, losses of the grids): GPU-
seconds until the winner's best report and until the search has ended. Energy is bounded from above
by the card's 700 W (its data sheet; power was not measured), money is at 2.50 dollars an hour, an
assumed price. A stop before the end cannot know that it has the winner: the time to it is known
afterwards.
"""

from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.curve_sets import origins, shown_sets
from experiments.exhibit import Exhibit, Table, Verdict
from experiments.search_costs import BACKBONES, PEFT, SYSTEMS, search_cost

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
        found=tuple(
            f"{backbone}: {_text(by_name[backbone, PEFT])} with PEFT one after another, "
            f"{_text(by_name[backbone, 'alto'])} with alto, {_text(by_name[backbone, 'alto+'])} "
            "with alto+."
            for backbone in BACKBONES
        ),
        table=Table(
            ("backbone", "system", "GPU-s to the best", "GPU-s", "kWh at most", "dollars"),
            tuple(rows),
        ),
        logs=("`kernels/profiles/h100.jsonl`", *origins(sets)),
        seeds=f"Means over {len(sets)} tasks.",
        figure=_draw(rows),
    )


def _text(row: tuple[str, str, float, float, float, float]) -> str:
    return f"{row[4]:.2g} kWh at most and {row[5]:.2f} dollars"


def _draw(rows: list[tuple[str, str, float, float, float, float]]) -> Figure:
    figure, panels = panels_of(3.0, len(BACKBONES))
    for axes, backbone in zip(panels, BACKBONES, strict=True):
        own = [row for row in rows if row[0] == backbone]
        names = [row[1] for row in own]
        axes.barh(names, [row[3] for row in own], color=MUTED, alpha=0.4, label="to the end")
        drawn = axes.barh(
            names, [row[2] for row in own], 0.5, color=PALETTE[0], label="to the best adapter"
        )
        axes.bar_label(drawn, fmt="{:,.0f}", fontsize=7, color=INK, padding=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.invert_yaxis()
        axes.set_title(backbone, fontsize=9, color=INK)
        axes.set_xlabel("GPU-seconds")
        axes.grid(axis="x", color=GRID)
        if axes is not panels[0]:
            axes.set_yticks([])
    panels[0].legend(fontsize=7, frameon=False, loc="lower right")
    return figure
