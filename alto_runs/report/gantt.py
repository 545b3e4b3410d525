"""Who was on which GPU, and when."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch, Rectangle

from alto_policy.events import Departure
from alto_policy.types import Gpu, GpuId, JobId
from alto_runs.outcomes.history import ExecutorSpan, Outage, Residency, RunHistory
from alto_runs.outcomes.lanes import assign_slots
from alto_runs.report.drawing import (
    GRID,
    INK,
    MANY_SHAPES,
    MUTED,
    figure_of,
    short,
    svg_of,
    tell_thousands,
)
from alto_runs.report.ending import Ending, ending_of

__all__ = ["Bar", "assign_lanes", "draw_gantt", "duration", "time_unit"]

_OUT_OF_ORDER: dict[str, Any] = {
    "facecolor": "none", "edgecolor": MUTED, "hatch": "////", "linewidth": 0.0, "zorder": 1
}  # fmt: skip
_HELD = "#DCE9F2"  # the tint of a backbone that is loaded
_PALE = 0.45  # opacity of a stay after which the job trained on, or waited to
_LANE, _HIGHEST = 0.17, 9.0  # inches of a lane, and of all
_MOST_WINNERS = 30  # that are outlined: more outlines would hide the short stays below them
_LABEL = 0.16  # inches that the name of a GPU takes


@dataclass(frozen=True, slots=True)
class Bar:
    """A job's stay on a GPU, in the lane of a slot that was free."""

    job: JobId
    stay: Residency
    ending: Ending
    lane: int


def assign_lanes(history: RunHistory) -> dict[GpuId, list[Bar]]:
    """Bars of each GPU that was held, in the order of their starts, each in the lowest lane that
    is free."""
    slots = assign_slots(history)
    held = {gpu for span in history.executors for gpu in span.gpus}
    return {
        gpu: [Bar(s.job.spec.id, s.stay, ending_of(s.job), s.lane) for s in slots.get(gpu, ())]
        for gpu in sorted(held | slots.keys())
    }


def draw_gantt(history: RunHistory, winners: Iterable[JobId], gpus: Iterable[Gpu] = ()) -> str:
    """SVG with a lane for each slot of a GPU; colours tell how jobs ended, pale bars a pause.

    Those of the `gpus` that are known tell their kind, if there are several.
    """
    by_gpu = assign_lanes(history)
    heights = {gpu: 1 + max((bar.lane for bar in bars), default=0) for gpu, bars in by_gpu.items()}
    num_lanes = sum(heights.values())
    height = min(_HIGHEST, max(1.2, _LANE * num_lanes))
    figure, axes = figure_of(1.3 + height)
    scale, unit = time_unit(history.end)
    bottom, rectangles, faces, edges = 0, [], [], []
    best, kinds = frozenset(winners), _kinds(gpus)
    chosen = best if len(best) <= _MOST_WINNERS else frozenset()
    ticks: list[tuple[float, str]] = []
    for gpu, bars in by_gpu.items():
        for bar in bars:
            left, width = bar.stay.start / scale, (bar.stay.end - bar.stay.start) / scale
            rectangles.append(Rectangle((left, bottom + bar.lane + 0.08), width, 0.84))
            faces.append(to_rgba(bar.ending.color, 1.0 if _is_last(bar) else _PALE))
            edges.append(INK if bar.job in chosen else "white")
        ticks.append((bottom + heights[gpu] / 2, f"GPU {gpu}{kinds.get(gpu, '')}"))
        bottom += heights[gpu]
        axes.axhline(bottom, color=GRID, linewidth=1)
    _draw_holds(axes, history.executors, heights, scale)
    _draw_outages(axes, history.outages, heights, scale)
    collection = PatchCollection(
        rectangles,
        facecolors=faces,
        edgecolors=edges,
        linewidths=[1.6 if edge == INK else 0.6 for edge in edges],
        zorder=2,
        rasterized=len(rectangles) > MANY_SHAPES,
    )
    axes.add_collection(collection)
    axes.set_xlim(0, max(history.end / scale, 1e-9))
    axes.set_ylim(max(bottom, 1), 0)
    shown = _apart(ticks, _LABEL * max(1, num_lanes) / height)
    axes.set_yticks([at for at, _ in shown], [name for _, name in shown], color=INK)
    axes.set_xlabel(unit)
    tell_thousands(axes.xaxis)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    handles = _legend([bar for bars in by_gpu.values() for bar in bars], bool(chosen))
    if history.outages:
        handles.append(Patch(label="node is down", **_OUT_OF_ORDER))
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False)
    return svg_of(figure, "Jobs on the GPUs over time")


def _kinds(gpus: Iterable[Gpu]) -> dict[GpuId, str]:
    kinds = {gpu.id: f", {gpu.kind}" for gpu in gpus}
    return kinds if len(set(kinds.values())) > 1 else {}


def _apart(ticks: Iterable[tuple[float, str]], least: float) -> list[tuple[float, str]]:
    """Those whose names do not lie on the name above."""
    shown: list[tuple[float, str]] = []
    for at, name in ticks:
        if not shown or at - shown[-1][0] >= least:
            shown.append((at, name))
    return shown


def _draw_holds(
    axes: Axes, spans: Iterable[ExecutorSpan], heights: Mapping[GpuId, int], scale: float
) -> None:
    """A tint behind the lanes of a GPU that has a backbone, whether or not jobs train on it."""
    bottom = _bottoms(heights)
    rectangles = [
        Rectangle((s.start / scale, bottom[gpu]), (s.end - s.start) / scale, heights[gpu])
        for s in spans
        for gpu in s.gpus
    ]
    is_many = len(rectangles) > MANY_SHAPES
    axes.add_collection(
        PatchCollection(rectangles, facecolors=_HELD, linewidths=0, zorder=0.5, rasterized=is_many)
    )


def _bottoms(heights: Mapping[GpuId, int]) -> dict[GpuId, int]:
    return dict(zip(heights, accumulate(heights.values(), initial=0), strict=False))


def _draw_outages(
    axes: Axes, outages: Iterable[Outage], heights: Mapping[GpuId, int], scale: float
) -> None:
    """Hatched over all lanes of a GPU whose node is down."""
    bottom = _bottoms(heights)
    for outage in outages:
        left, width = outage.start / scale, (outage.end - outage.start) / scale
        for gpu in outage.gpus:
            if gpu in heights:
                corner = (left, bottom[gpu])
                axes.add_patch(Rectangle(corner, width, heights[gpu], **_OUT_OF_ORDER))


def duration(seconds: float) -> str:
    """In the unit in which it is read most easily."""
    scale, unit = time_unit(seconds)
    return f"{short(seconds / scale)} {unit}"


def time_unit(seconds: float) -> tuple[float, str]:
    if seconds >= 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")


def _is_last(bar: Bar) -> bool:
    return bar.stay.how in (Departure.FINISHED, Departure.STOPPED, Departure.FAILED)


def _legend(bars: Sequence[Bar], has_winner: bool) -> list[Patch]:
    endings = {bar.ending for bar in bars}
    handles = [Patch(color=e.color, label=e.label) for e in Ending if e in endings]
    if not all(map(_is_last, bars)):
        handles.append(Patch(color=MUTED, alpha=_PALE, label="pale: then paused"))
    handles.append(Patch(color=_HELD, label="backbone loaded"))
    if has_winner:
        handles.append(Patch(facecolor="white", edgecolor=INK, linewidth=1.6, label="best"))
    return handles
