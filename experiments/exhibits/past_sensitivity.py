"""How much each threshold matters.

The paper: one set of thresholds for all tasks, chosen by hand; the smoothing weight and the
interval of reports are not given.

Here: each setting of `alto` moved alone, the others at their defaults: warm-up, share kept,
smoothing, gap, slope, window, both patiences, and the interval of reports (2.5, 5 and 10 % of a
job; a patience counts reports, so that a longer interval also waits longer). Budget and regret over
the full grids.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from alto_policy.exits import ExitRules
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.grids.curve_sets import CurveSet, by_seed, origins, shown_sets
from experiments.grids.rounds_of_selection import ALTO, Outcome, Selection, outcome
from experiments.grids.same_task import told_count

__all__ = ["exhibit", "thinned", "variants"]

_GENERATED = 4
_RULES: dict[str, tuple[float | int, ...]] = {
    "smoothing": (0.1, 0.25, 0.5, 0.75, 1.0),
    "gap": (0.05, 0.1, 0.2, 0.4),
    "slope": (0.0, 0.001, 0.003, 0.01, 0.03),
    "window": (2, 3, 4, 6),
    "divergence_patience": (1, 2, 3, 4),
    "overfitting_patience": (1, 2, 3, 4),
}
_WARMUPS, _KEEPS = (0.025, 0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.15, 0.25, 0.35, 0.5)
_EVERY = (1, 2, 4)


def variants() -> dict[str, list[tuple[float, Selection]]]:
    """Selections by the setting that is moved, with its value."""
    found: dict[str, list[tuple[float, Selection]]] = {
        "warm-up": [(share, replace(ALTO, rounds=(share,))) for share in _WARMUPS],
        "kept": [(keep, replace(ALTO, keep=(keep,))) for keep in _KEEPS],
    }
    for field, values in _RULES.items():
        found[field] = [
            (float(value), replace(ALTO, rules=_rules(field, value))) for value in values
        ]
    return found


def thinned(curves: CurveSet, every: int) -> CurveSet:
    """Every so many reports only; the training loss between them is their mean, as it would be."""
    rows, columns = curves.train.shape
    whole = columns // every * every
    train = curves.train[:, :whole].reshape(rows, -1, every).mean(axis=2)
    jobs = tuple(replace(job, reports=whole // every) for job in curves.task.jobs)
    return replace(
        curves,
        task=replace(curves.task, jobs=jobs),
        train=train,
        val=curves.val[:, every - 1 : whole : every],
    )


def exhibit() -> Exhibit:
    sets = shown_sets(_GENERATED)
    rows: list[tuple[str, float, float, float, float, float]] = []
    for name, moved in variants().items():
        rows += [(name, value, *_row([outcome(s, one) for s in sets])) for value, one in moved]
    for every in _EVERY:
        thin = [thinned(curves, every) for curves in sets]
        found = [
            _against(outcome(few, ALTO), few, all_) for few, all_ in zip(thin, sets, strict=True)
        ]
        rows.append(("report every", every / sets[0].num_reports, *_row(found)))
    names = list(dict.fromkeys(row[0] for row in rows))
    spans = {name: _span([row for row in rows if row[0] == name]) for name in names}
    widest = sorted(names, key=lambda name: -spans[name][1])
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=f"Of all settings {_spoken(widest[:2])} change the regret most, and "
        f"{_spoken(sorted(names, key=lambda name: -spans[name][0])[:2])} the number of samples "
        "that are trained.",
        found=tuple(
            f"{name.replace('_', ' ')}: the budget moves by {100 * spans[name][0]:.1f} points, the "
            f"mean regret by {100 * spans[name][1]:.2f}."
            for name in widest
        ),
        table=Table(("setting", "value", "budget", "regret", "worst regret", "kept"), tuple(rows)),
        logs=origins(sets),
        seeds=f"Means over {told_count(len(sets), len(by_seed(sets)))}.",
        figure=_draw(rows, names),
    )


def _spoken(names: Sequence[str]) -> str:
    return " and ".join(f"*{name.replace('_', ' ')}*" for name in names)


def _rules(field: str, value: float | int) -> ExitRules:
    changed: dict[str, Any] = {field: value}
    return replace(ExitRules(), **changed)


def _against(found: Outcome, few: CurveSet, whole: CurveSet) -> Outcome:
    """With regret against the best of all reports, some of which were not made."""
    ratio = float(few.best.min()) / float(whole.best.min())
    return replace(found, regret=(1 + found.regret) * ratio - 1)


def _row(found: Sequence[Outcome]) -> tuple[float, float, float, float]:
    return (
        fmean(one.budget for one in found),
        fmean(one.regret for one in found),
        max(one.regret for one in found),
        fmean(one.top_kept for one in found),
    )


def _span(rows: Sequence[tuple[str, float, float, float, float, float]]) -> tuple[float, float]:
    budgets, regrets = [row[2] for row in rows], [row[3] for row in rows]
    return max(budgets) - min(budgets), max(regrets) - min(regrets)


_MOST_NAMED = 3


def _label_ends(axes: Axes, place: int, settings: Sequence[float], values: Sequence[float]) -> None:
    """The settings at both ends; how many where there are more than a few."""
    low, high = min(values), max(values)
    ends = ((low, "right", -6), (high, "left", 6)) if high > low else ((low, "left", 6),)
    for end, side, shift in ends:
        here = [f"{s:g}" for s, value in zip(settings, values, strict=True) if value == end]
        told = ", ".join(here) if len(here) <= _MOST_NAMED else f"{len(here)} others"
        axes.annotate(
            told if high > low else f"all {len(here)}",
            (end, place),
            xytext=(shift, 0),
            textcoords="offset points",
            fontsize=7,
            color=INK,
            ha=side,
            va="center",
        )


def _draw(
    rows: Sequence[tuple[str, float, float, float, float, float]], names: Sequence[str]
) -> Figure:
    figure, (budgets, regrets) = panels_of(4.2, 2)
    for place, name in enumerate(names):
        own = [row for row in rows if row[0] == name]
        drawn = (
            (budgets, [row[2] for row in own]),
            (regrets, [100 * row[3] for row in own]),
        )
        for axes, values in drawn:
            axes.plot(values, [place] * len(values), "-", color=GRID, lw=3, zorder=1)
            axes.scatter(values, [place] * len(values), s=16, color=PALETTE[0], zorder=2)
            _label_ends(axes, place, [row[1] for row in own], values)
    budgets.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    budgets.xaxis.set_major_locator(MultipleLocator(0.05))
    regrets.set_yticks(range(len(names)), [])
    budgets.set_xlabel("samples trained, share of the full grid (dotted: all defaults)")
    regrets.set_xlabel("regret, % (dotted: all defaults)")
    (default,) = (row for row in rows if row[:2] == ("warm-up", *ALTO.rounds))
    for axes, value in ((budgets, default[2]), (regrets, 100 * default[3])):
        axes.axvline(value, color=INK, ls=":", lw=1, zorder=1.5)
        axes.margins(x=0.2)  # for the names at both ends
        axes.grid(axis="x", color=GRID)
        axes.set_ylim(-0.6, len(names) - 0.2)
    return figure
