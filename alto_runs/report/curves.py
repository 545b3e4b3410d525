"""Validation losses over the samples that each job has seen."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, ScalarFormatter

from alto_policy.types import JobId
from alto_runs.history import JobHistory
from alto_runs.report.drawing import GRID, INK, MANY_SHAPES, figure_of, svg_of
from alto_runs.report.ending import Ending, ending_of

__all__ = ["draw_curves"]

_LOG_FROM = 4.0  # ratio of the largest to the smallest loss


def draw_curves(jobs: Sequence[JobHistory], winner: JobId | None) -> str:
    """SVG of one line for each job, marked where an exit ended it; the winner on top."""
    figure, axes = figure_of(4.2)
    num_points = 0
    for job in sorted(jobs, key=lambda job: _depth(job, winner)):
        num_points += _draw_job(axes, job, is_winner=job.spec.id == winner)
    losses = [loss for job in jobs for _, loss in _points(job)]
    if losses and min(losses) > 0 and max(losses) / min(losses) > _LOG_FROM:
        _use_log_scale(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("training samples of the job")
    axes.set_ylabel("validation loss")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    if num_points > MANY_SHAPES * 20:
        for line in axes.get_lines():
            line.set_rasterized(True)
    _add_legend(axes, {ending_of(job) for job in jobs if _points(job)}, winner)
    return svg_of(figure, "Validation loss of each job over its training samples")


def _draw_job(axes: Axes, job: JobHistory, *, is_winner: bool) -> int:
    points = _points(job)
    if not points:
        return 0
    samples, losses = zip(*points, strict=True)
    ending = ending_of(job)
    width, alpha = (1.0, 0.65) if ending is Ending.UNDERPERFORMED else (1.3, 0.85)
    if is_winner:
        axes.plot(samples, losses, color="white", linewidth=5.5, zorder=9)
        axes.plot(samples, losses, color=INK, linewidth=2.8, zorder=10)
        best = min(points, key=lambda point: point[1])
        axes.plot(*best, "o", color=INK, markersize=8, markeredgecolor="white", zorder=11)
        _label_winner(axes, job.spec.id, best)
    else:
        axes.plot(samples, losses, color=ending.color, linewidth=width, alpha=alpha)
    if ending is not Ending.FINISHED:
        axes.plot(*points[-1], ending.mark, color=ending.color, markersize=7, zorder=6)
    return len(points)


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


def _use_log_scale(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
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


def _points(job: JobHistory) -> list[tuple[int, float]]:
    """Samples and loss of the reports that can be drawn."""
    reports = (report for report in job.reports if math.isfinite(report.val_loss))
    return [(job.spec.samples(report.step), report.val_loss) for report in reports]


def _depth(job: JobHistory, winner: JobId | None) -> tuple[bool, bool]:
    """The grey ones lowest, the winner on top."""
    return job.spec.id == winner, ending_of(job) is not Ending.UNDERPERFORMED
