"""Figure 11: preference tuning (DPO).

The paper: Qwen2.5-32B on UltraFeedback, 60 configurations, batch 2 to 16: batched 1.8 times and
batched with early exit 4.7 times as fast as one after another; best preference accuracy 76.17 %
both with and without exits.

Here: SmolLM2-135M on 800 pairs made by rule from real records (`examples/preferences`: the right
conclusion against that of another pair of facts), 24 configurations, every job to its end and with
exits, both recorded on one H100. One after another was not run, so what the exits add to batching
is compared. The pairs are easy: the accuracy of both winners is that of all pairs.

The paper against itself: text and figure 15 give 84 and 80 % for the samples that exits save in
DPO.
"""

from dataclasses import astuple, dataclass
from pathlib import Path

from matplotlib.figure import Figure

from alto_runs.comparison import read_comparisons
from alto_runs.directory import RunDirectory
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, figure_of
from alto_runs.result import Result
from experiments.curve_sets import RECORDED
from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit"]

# Figure 11: speed-up over one after another, and best accuracy in per cent where it is printed.
_PAPER = (("one after another", 1.0, None), ("batched", 1.8, None), ("batched, exits", 4.7, 76.17))
_RUNS = {
    "batched": RECORDED / "qasc-preferences-fifo",
    "batched, exits": RECORDED / "qasc-preferences-alto",
}
_CLOSE = 0.25  # relative, of what exits add


@dataclass(frozen=True, slots=True)
class _Found:
    seconds: float
    loss: float  # the winner's
    accuracy: float  # share of the pairs in which it prefers the better answer
    saved: float  # of the samples


def exhibit() -> Exhibit:
    found = {name: _read(folder) for name, folder in _RUNS.items()}
    batched, exits = found.values()
    gain, in_paper = batched.seconds / exits.seconds, _PAPER[2][1] / _PAPER[1][1]
    holds = batched.accuracy == exits.accuracy and abs(gain / in_paper - 1) <= _CLOSE
    return Exhibit(
        verdict=Verdict.PARTLY if holds else Verdict.NOT_REPRODUCED,
        found=(
            f"Exits make the batched search {gain:.2f} times as fast; in the paper {in_paper:.2f}.",
            f"They save {exits.saved:.0%} of the samples; in the paper 80 or 84 %.",
            f"The winner prefers the better answer in {exits.accuracy:.0%} of pairs with exits, "
            f"in {batched.accuracy:.0%} without.",
        ),
        table=Table(
            (
                "system", "makespan, s", "best loss", "accuracy", "samples saved",
                "paper, speed-up", "paper, accuracy",
            ),
            tuple((name, *_cells(found.get(name)), *paper) for name, *paper in _PAPER),
        ),
        logs=tuple(
            f"`traces/recorded/{folder.name}/{RunDirectory(folder).log_path.name}`"
            for folder in _RUNS.values()
        ),
        seeds="One run each, no error bars.",
        figure=_draw({name: batched.seconds / one.seconds for name, one in found.items()}),
    )  # fmt: skip


def _draw(speeds: dict[str, float]) -> Figure:
    """Both over the batched search that trains every job to its end: what both have."""
    figure, axes = figure_of(2.8)
    names = [name for name, *_ in _PAPER]
    theirs = [speed / _PAPER[1][1] for _, speed, _ in _PAPER]
    ours = [speeds.get(name, 0.0) for name in names]
    series = ((ours, 0.2, PALETTE[0], "here, 24 jobs"), (theirs, -0.2, MUTED, "paper, 60 jobs"))
    for heights, shift, colour, label in series:
        places = [place + shift for place in range(len(names))]
        drawn = axes.bar(places, heights, 0.4, color=colour, label=label)
        told = [f"{height:.2f}" if height else "not run" for height in heights]
        axes.bar_label(drawn, told, padding=2, fontsize=8, color=INK)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("speed-up over batched")
    axes.grid(axis="y", color=GRID)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _read(folder: Path) -> _Found:
    metrics = Result(folder).metrics.overall
    (winner,) = read_comparisons(RunDirectory.open(folder).comparison_path)
    assert winner.preferred is not None
    return _Found(metrics.makespan_seconds, winner.val_loss, winner.preferred, metrics.saved_share)


def _cells(one: _Found | None) -> tuple[float | None, ...]:
    return (None,) * 4 if one is None else astuple(one)
