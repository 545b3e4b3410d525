"""Where the samples of the search went."""

from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.decisions import ExitReason
from alto_runs.outcomes.metrics import TaskMetrics
from alto_runs.report.drawing import MUTED, figure_of, svg_of
from alto_runs.report.ending import Ending

__all__ = ["SampleBar", "draw_samples"]

_ENDINGS = {
    ExitReason.UNDERPERFORMED: Ending.UNDERPERFORMED,
    ExitReason.OVERFITTED: Ending.OVERFITTED,
    ExitReason.DIVERGED: Ending.DIVERGED,
    ExitReason.NON_FINITE: Ending.NON_FINITE,
}
_TRAINED, _NEITHER = "#0072B2", "#F5F7FA"


@dataclass(frozen=True, slots=True)
class SampleBar:
    name: str
    metrics: TaskMetrics


def draw_samples(bars: Sequence[SampleBar]) -> str:
    """SVG of one bar for each run or task: trained, saved by each rule, neither; as shares."""
    figure, axes = figure_of(1.0 + 0.42 * len(bars))
    parts = [("trained", _TRAINED, [bar.metrics.samples_trained for bar in bars])]
    parts += [
        (f"saved: {ending.label}", ending.color, [bar.metrics.saved_by_rule[rule] for bar in bars])
        for rule, ending in _ENDINGS.items()
    ]
    totals = [max(1, bar.metrics.samples_total) for bar in bars]
    columns = zip(totals, *(counts for _, _, counts in parts), strict=True)
    rest = [total - sum(counts) for total, *counts in columns]
    parts.append(("not trained", _NEITHER, rest))
    lefts = [0.0] * len(bars)
    for label, color, counts in parts:
        if not any(counts):
            continue
        widths = [100 * count / total for count, total in zip(counts, totals, strict=True)]
        edge = MUTED if color == _NEITHER else "none"
        axes.barh(
            range(len(bars)), widths, 0.62, lefts, color=color, label=label, edgecolor=edge, lw=0.6
        )
        for row, (left, width) in enumerate(zip(lefts, widths, strict=True)):
            if width >= 6:
                ink = "white" if color == _TRAINED else "#1F2933"
                axes.text(left + width / 2, row, f"{width:.0f} %", ha="center", va="center", c=ink)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], color="#1F2933")
    axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the samples of the search", color=MUTED)
    if bars:
        figure.legend(loc="outside upper left", ncols=5, frameon=False, handlelength=1.2)
    return svg_of(figure, "Samples trained and saved")
