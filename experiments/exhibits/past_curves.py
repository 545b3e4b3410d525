"""How near generated losses are to recorded ones.

The paper: simulates nothing; its curves are those of its runs.

Here: the landscape of final losses over learning rate and rank against the 548 final losses that it
is fitted to, a best loss and rate of each model being fitted with it. And courses: searches of
60 jobs that were trained to their ends beside generated ones, by the jobs that end within a tenth
of the best. *Way left*: what is still ahead, after a tenth of the steps, of the fall from the first
report to the job's least loss. *Noise*: the deviation from a line through the neighbours, over the
second half. *Gap*: the last validation loss over the last training loss, less 1. *Rise*: the same
over the job's least. A shape *as recorded* has the noise, gap and way of the recorded searches in
the mean; `--conditions` takes it.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from alto_sim.curves.fit import LandscapeFit, fit_landscape, read_sweep
from alto_sim.curves.generated import DEFAULT_SHAPE, Shape
from experiments.exhibits.exhibit import Cell, Exhibit, Table, Verdict
from experiments.grids.curve_sets import (
    RECORDED,
    Array,
    CurveSet,
    by_seed,
    generated_sets,
    origins,
    recorded_sets,
)

__all__ = ["Course", "course", "exhibit", "fitted"]

_SWEEP = RECORDED.parent / "sweeps" / "tinker_sft_sweep.csv"
_GENERATED = 20
_GOOD = 1.1  # of the best loss: the jobs that a search is about
_LOST = 2.0  # the same: the jobs that it should not have tried
_EARLY = 0.1  # share of the steps
_TRIES = 6
_LEAST, _MOST = 0.005, 0.6  # share by which a training loss is lower


class Course(NamedTuple):
    """Medians over the good jobs of a set, and shares of all its jobs."""

    good: float
    lost: float
    way_left: float
    noise: float
    gap: float
    rise: float


def course(curves: CurveSet) -> Course:
    best = float(curves.best.min())
    (good,) = np.nonzero(curves.best <= _GOOD * best)
    val, train = curves.val[good], curves.train[good]
    least = np.nanmin(val, axis=1)
    early = int(np.ceil(round(_EARLY * curves.num_reports, 9))) - 1
    return Course(
        good=len(good) / len(curves.best),
        lost=float(np.mean(curves.final > _LOST * best)),
        way_left=float(np.nanmedian((val[:, early] - least) / (val[:, 0] - least))),
        noise=_noise(val[:, curves.num_reports // 2 :]),
        gap=float(np.nanmedian(val[:, -1] / train[:, -1] - 1)),
        rise=float(np.nanmedian(val[:, -1] / least - 1)),
    )


def fitted(courses: Sequence[Course]) -> Shape:
    """That gives generated searches the same noise, gap and way left, by trying."""
    target, shape = _mean(courses), DEFAULT_SHAPE
    if len(courses) > 1:
        spread = float(np.std(np.log([_lower(each.gap) for each in courses])))
        shape = replace(shape, overfit_spread=spread)
    for _ in range(_TRIES):
        made = _mean([course(one) for one in generated_sets(_GENERATED, shape=shape)])
        overfit = shape.overfit * _lower(target.gap) / _lower(made.gap)
        shape = replace(
            shape,
            noise=shape.noise * target.noise / made.noise,
            overfit=min(_MOST, overfit),
            speed=shape.speed * (made.way_left / target.way_left) ** 2,
        )
    return Shape(**{each.name: float(f"{getattr(shape, each.name):.2g}") for each in fields(shape)})


def _lower(gap: float) -> float:
    """By what share the training loss is."""
    return max(_LEAST, gap / (1 + gap))


def _noise(losses: Array) -> float:
    """Of each job the median deviation; a second difference has six times the variance."""
    bends = np.diff(losses, 2, axis=1) / losses[:, 2:]
    each = np.nanmedian(np.abs(bends), axis=1) / 0.6745 / np.sqrt(6)
    return float(np.nanmedian(each))


def exhibit(folder: Path = RECORDED) -> Exhibit:
    fit = fit_landscape(read_sweep(_SWEEP))
    groups, generated = by_seed(recorded_sets(folder)), generated_sets(_GENERATED)
    found = {group[0].name: _mean([course(one) for one in group]) for group in groups}
    drawn = [course(one) for one in generated]
    spread = [np.quantile([each[i] for each in drawn], [0.1, 0.9]) for i in range(len(drawn[0]))]
    shape = fitted(list(found.values())) if found else DEFAULT_SHAPE
    alike = generated_sets(_GENERATED, shape=shape)
    rows: list[tuple[Cell, ...]] = [(name, *each) for name, each in found.items()]
    as_recorded = _mean([course(one) for one in alike])
    rows.append((f"generated as recorded, mean of {_GENERATED}", *as_recorded))
    rows.append((f"generated, mean of {_GENERATED}", *_mean(drawn)))
    rows += [
        (f"generated, {share} quantile", *(float(ends[i]) for ends in spread))
        for i, share in enumerate(("0.1", "0.9"))
    ]
    figure, panels = panels_of(3.4, 2)
    _draw_fit(panels[0], fit)
    _draw_courses(panels[1], [group[0] for group in groups], generated, alike)
    beyond = [
        name.replace("_", " ")
        for name, (low, high) in zip(Course._fields, spread, strict=True)
        if not any(low <= getattr(each, name) <= high for each in found.values())
    ]
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=f"The form of generated final losses explains {fit.explained:.0%} of the variance of "
        "real ones. Generated courses are smoother and rise less than recorded ones, except those "
        "drawn *as recorded*.",
        found=(
            f"The landscape explains {fit.explained:.0%} of the variance of the logarithm of the "
            f"excess of {len(fit.runs)} final losses over {len({run.task for run in fit.runs})} "
            "models. Divergence is set by hand: the runs that diverged are not among them.",
            "By default courses are assumed: of large models on much data. No recorded search has "
            f"{', '.join(beyond) or 'nothing'} as eight of ten such searches have.",
            f"As recorded: {shape.told}.",
        ),
        table=Table(("search", *(name.replace("_", " ") for name in Course._fields)), tuple(rows)),
        logs=(
            f"`traces/sweeps/{_SWEEP.name}`",
            *origins([curves for group in groups for curves in group]),
            f"generated curves, seeds 0 to {_GENERATED - 1}",
        ),
        seeds="Recorded searches are means over their seeds.",
        figure=figure,
    )


def _mean(courses: Sequence[Course]) -> Course:
    return Course(*(float(np.mean(values)) for values in zip(*courses, strict=True)))


def _draw_fit(axes: Axes, fit: LandscapeFit) -> None:
    measured, predicted = (100 * np.array(each) for each in (fit.measured, fit.predicted))
    axes.scatter(predicted, measured, s=6, color=PALETTE[0], alpha=0.5, linewidths=0)
    ends = [0.05, float(measured.max()) * 1.5]
    axes.plot(ends, ends, color=MUTED, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("excess over the model's best, by the landscape, %")
    axes.set_ylabel("measured, %")
    axes.grid(color=GRID)


def _draw_courses(
    axes: Axes,
    recorded: Sequence[CurveSet],
    generated: Sequence[CurveSet],
    alike: Sequence[CurveSet],
) -> None:
    for sets, label, alpha in ((generated, "generated", 0.35), (alike, "as recorded", 0.15)):
        bands = np.array([_loss_over_best(curves) for curves in sets])
        shares = (np.arange(bands.shape[1]) + 1) / bands.shape[1]
        low, high = np.quantile(bands, [0.1, 0.9], axis=0)
        axes.fill_between(shares, low, high, color=MUTED, alpha=alpha, linewidth=0, label=label)
    for curves, colour in zip(recorded, PALETTE, strict=False):
        losses = _loss_over_best(curves)
        shares = (np.arange(len(losses)) + 1) / len(losses)
        axes.plot(shares, losses, color=colour, linewidth=1.4, label=curves.name)
    axes.set_yscale("log")
    axes.set_yticks([1, 1.2, 1.5, 2], ["1", "1.2", "1.5", "2"])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("share of a job's steps")
    axes.set_ylabel("validation loss over the best of the search")
    axes.grid(color=GRID)
    axes.legend(fontsize=7, frameon=False, labelcolor=INK)


def _loss_over_best(curves: CurveSet) -> Array:
    """Of the median of the good jobs."""
    best = float(curves.best.min())
    losses: Array = np.nanmedian(curves.val[curves.best <= _GOOD * best], axis=0) / best
    return losses
