"""How much of the cluster was held, used and shared, over time."""

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from alto_runs.outcomes.schedule import Usage
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of, svg_of, tell_thousands
from alto_runs.report.gantt import time_unit

__all__ = ["draw_usage"]

_MOST_STEPS = 600  # more are averaged into so many, which is as fine as the page can show


def draw_usage(usage: Usage, num_gpus: int) -> str:
    """SVG: GPUs with a backbone and with jobs above, jobs on each busy GPU below."""
    times, (allocated, busy, adapters) = _steps(usage)
    figure, (above, below) = panels_of(3.4, 2, stacked=True)
    scale, unit = time_unit(float(usage.times[-1]))
    at = times / scale
    labels = ("backbone loaded", "training")
    for counts, label, shade in zip((allocated, busy), labels, (0.25, 0.85), strict=True):
        above.fill_between(
            at, counts, step="post", color=PALETTE[0], alpha=shade, linewidth=0, label=label
        )
    above.axhline(num_gpus, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="all GPUs")
    above.set_ylim(0, 1.08 * max(1, num_gpus))
    above.set_ylabel("GPUs")
    per_gpu = np.divide(adapters, busy, out=np.zeros_like(adapters), where=busy > 0)
    below.step(at, per_gpu, where="post", color=PALETTE[1], linewidth=1.4)
    below.fill_between(at, per_gpu, step="post", color=PALETTE[1], alpha=0.18, linewidth=0)
    below.set_ylim(bottom=0)
    below.set_ylabel("jobs on a GPU")
    below.set_xlabel(unit)
    tell_thousands(below.xaxis)
    for axes in (above, below):
        axes.set_xlim(0, max(float(at[-1]), 1e-9))
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    figure.align_ylabels([above, below])
    figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.4)
    return svg_of(figure, "GPUs in use and jobs on each of them over time")


def _steps(usage: Usage) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    """The steps themselves, or their means in equal bins."""
    series = (usage.allocated, usage.busy, usage.adapters)
    if len(usage.times) <= _MOST_STEPS:
        return usage.times, tuple(counts.astype(float) for counts in series)
    edges = np.linspace(usage.times[0], usage.times[-1], _MOST_STEPS + 1)
    widths = np.diff(usage.times)
    means = []
    for counts in series:
        areas = np.concatenate([[0.0], np.cumsum(counts[:-1] * widths)])
        mean = np.diff(np.interp(edges, usage.times, areas)) / np.diff(edges)
        means.append(np.append(mean, mean[-1]))
    return edges, tuple(means)
