"""Validation losses over the samples that each job has seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from alto_policy.types import JobId
from alto_runs.outcomes.history import JobHistory
from alto_runs.report.drawing import GRID, INK, MANY_SHAPES, MUTED, figure_of, svg_of, tell_values
from alto_runs.report.ending import Ending, ending_of

__all__ = ["draw_curves"]

_LOG_FROM = 4.0  # ratio of the largest to the smallest loss
_FEW_DECADES = 300.0  # ratio up to which the values between powers of ten are told
_WIDEST = 1e9  # ratio that is shown
_HIGHEST = 1.25  # times what a job begins at: what is worse leaves the picture at its top
_MANY_POINTS = MANY_SHAPES * 20


@dataclass(frozen=True, slots=True)
class _Curve:
    """The reports of a job that can be drawn: samples and loss."""

    job: JobId
    ending: Ending
    points: list[tuple[int, float]]


def draw_curves(jobs: Sequence[JobHistory], winner: JobId | None) -> str:
    """SVG of one line for each job, marked where an exit ended it; the winner on top."""
    figure, axes = figure_of(4.2)
    drawn = [curve for curve in map(_curve, jobs) if curve.points]
    num_points = sum(len(curve.points) for curve in drawn)
    _draw_lines(axes, [c for c in drawn if c.job != winner], as_image=num_points > _MANY_POINTS)
    _draw_ends(axes, drawn)
    for curve in drawn:
        if curve.job == winner:
            _draw_winner(axes, curve)
    losses = [loss for curve in drawn for _, loss in curve.points]
    worst = max(losses, default=0.0)
    top = min(worst, _top(drawn, winner))
    if losses and min(losses) > 0 and top / min(losses) > _LOG_FROM:
        _use_log_scale(axes, min(losses), top)
    elif top < worst:
        axes.set_ylim(min(losses) - 0.05 * top, top)
    _tell_higher(axes, drawn, top)
    axes.set_xlim(left=0)
    axes.set_xlabel("training samples of the job")
    axes.set_ylabel(axes.get_ylabel() or "validation loss")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _add_legend(axes, {curve.ending for curve in drawn}, winner)
    return svg_of(figure, "Validation loss of each job over its training samples")


def _draw_lines(axes: Axes, curves: Sequence[_Curve], *, as_image: bool) -> None:
    """As one collection, the grey ones lowest."""
    ordered = sorted(curves, key=lambda curve: curve.ending is not Ending.UNDERPERFORMED)
    greys = [curve.ending is Ending.UNDERPERFORMED for curve in ordered]
    lines = LineCollection(
        [curve.points for curve in ordered],
        colors=[
            to_rgba(c.ending.color, 0.65 if g else 0.85)
            for c, g in zip(ordered, greys, strict=True)
        ],
        linewidths=[1.0 if grey else 1.3 for grey in greys],
        rasterized=as_image,
    )
    axes.add_collection(lines)
    axes.autoscale_view()


def _draw_ends(axes: Axes, curves: Sequence[_Curve]) -> None:
    for ending in Ending:
        ends = [curve.points[-1] for curve in curves if curve.ending is ending]
        if ends and ending is not Ending.FINISHED:
            samples, losses = zip(*ends, strict=True)
            axes.plot(
                samples, losses, ending.mark, color=ending.color, markersize=7, zorder=6, ls="none"
            )


def _draw_winner(axes: Axes, curve: _Curve) -> None:
    samples, losses = zip(*curve.points, strict=True)
    axes.plot(samples, losses, color="white", linewidth=5.5, zorder=9)
    axes.plot(samples, losses, color=INK, linewidth=2.8, zorder=10)
    best = min(curve.points, key=lambda point: point[1])
    axes.plot(*best, "o", color=INK, markersize=8, markeredgecolor="white", zorder=11)
    _label_winner(axes, curve.job, best)


def _label_winner(axes: Axes, job: JobId, best: tuple[int, float]) -> None:
    """Above the left end of the best point, inside the frame wherever the point is."""
    axes.annotate(
        f"{job}: {best[1]:.4g}",
        best,
        xytext=(0, 14),
        textcoords="offset points",
        ha="right",
        fontweight="bold",
        color=INK,
        zorder=12,
        bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none"},
    )


def _top(curves: Sequence[_Curve], winner: JobId | None) -> float:
    """Of the picture, where one job that breaks down would else press all others into a line."""
    begun = median([curve.points[0][1] for curve in curves] or [math.inf])
    own = [loss for curve in curves if curve.job == winner for _, loss in curve.points]
    return max(_HIGHEST * begun, *own) if begun > 0 and own else math.inf


def _tell_higher(axes: Axes, curves: Sequence[_Curve], top: float) -> None:
    """At the upper edge: where jobs leave the picture, how many do, and how far up."""
    gone = [curve for curve in curves if any(loss > top for _, loss in curve.points)]
    for curve in gone:
        left_at = next(samples for samples, loss in curve.points if loss > top)
        edge = axes.get_xaxis_transform()  # samples, and the share of the height
        axes.plot(left_at, 0.98, "^", color=curve.ending.color, transform=edge, zorder=6)
    if gone:
        highest = max(loss for curve in gone for _, loss in curve.points)
        jobs = "1 job" if len(gone) == 1 else f"{len(gone)} jobs"
        axes.text(
            0.99, 0.97, f"higher up: {jobs}, to a loss of {highest:.3g}",
            transform=axes.transAxes, ha="right", va="top", fontsize=9, color=MUTED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _use_log_scale(axes: Axes, lowest: float, highest: float) -> None:
    axes.set_ylim(lowest / 1.2, min(highest, lowest * _WIDEST) * 1.2)
    axes.set_yscale("log")
    tell_values(axes.yaxis, (1, 2, 3, 5) if highest / lowest < _FEW_DECADES else (1,))
    axes.set_ylabel("validation loss (log scale)")


def _add_legend(axes: Axes, endings: set[Ending], winner: JobId | None) -> None:
    handles = [
        Line2D([], [], color=ending.color, marker=ending.mark, linewidth=1.5, label=ending.label)
        for ending in Ending
        if ending in endings
    ]
    if winner is not None:
        handles.insert(0, Line2D([], [], color=INK, linewidth=2.8, marker="o", label="best"))
    axes.figure.legend(
        handles=handles, loc="outside upper left", ncols=5, frameon=False, handlelength=1.6
    )


def _curve(job: JobHistory) -> _Curve:
    reports = (report for report in job.reports if math.isfinite(report.val_loss))
    points = [(job.spec.samples(report.step), report.val_loss) for report in reports]
    return _Curve(job.spec.id, ending_of(job), points)
