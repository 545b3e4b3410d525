"""Figure 1: how much hyper-parameters matter.

The paper: best validation loss over 165 configurations of Llama-8B: the worst is 11.0 times the
best on GSM8K, 10.8 on Tulu-3, 5.1 on OpenThoughts3. GSM8K accuracy spreads over 42.8 points (Llama,
median 4 %) and 73.9 (Qwen, median 31 %) from a worst of nearly 0, DPO reward accuracy of 60
configurations over 26.7, from about 53 to about 80 %.

Here: the best validation loss of each job of the full grids, and the final losses of 548 runs of a
real sweep over 35 models (`traces/sweeps`, without 80 runs that its authors call diverged). For
some full grids the answers of all adapters were judged (`answers.jsonl` beside the log, by
`recordings/answers.py`): the share of validation answers that greedy decoding gives word for word,
the share of answer tokens that are the most likely ones, or the share of pairs in which the better
answer is preferred. The spread of losses is the worst over the best, and that of accuracies is in
points of a per cent. In the picture each line is a search, so a task has one for each seed.

The paper against itself: the best accuracies of figure 1 (42.8 and 73.9 points above a worst of
nearly 0) are not those of figure 10 (49.5 and 62.6).
"""

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of, tell_values
from alto_sim.curves.fit import read_sweep
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.grids.curve_sets import RECORDED, by_seed, origins, recorded_sets, shown_sets
from experiments.grids.same_task import (
    by_task,
    mean_of_known,
    name_of,
    seed_of,
    spread_of,
    told_seeds,
)
from experiments.grids.scores import Measure, Search, searches

__all__ = ["Row", "accuracy_rows", "exhibit", "no_accuracies", "spread"]

_SWEEP = RECORDED.parent / "sweeps" / "tinker_sft_sweep.csv"
_SHOWN = 1.25  # of the sweep: loss over the best
_LOSS = "validation loss"
_PAPER = {
    _LOSS: "11.0, 10.8, 5.1 times",
    Measure.ANSWERS.value: "42.8, 73.9 points",
    Measure.PREFERRED.value: "26.7 points",
}
_PAPER_LEAST, _PAPER_POINTS = 5.1, 42.8  # of its three data sets, of its two models
_ENOUGH_TASKS = 3
_STYLES = {Measure.ANSWERS: "--", Measure.TOKENS: "-", Measure.PREFERRED: ":"}


class Row(NamedTuple):
    """Losses are over the best, accuracies points of a per cent below it; means over seeds."""

    task: str
    measure: str
    jobs: int
    seeds: int
    best: float | None
    worst: float  # against the best
    deviation: float | None  # of the worst, over seeds
    median: float  # against the best
    untuned: float | None  # accuracy of the model without an adapter
    paper: str | None


def spread(losses: Sequence[float]) -> tuple[float, float]:
    """The worst finite loss over the best, and the median over the best."""
    finite = [loss for loss in losses if np.isfinite(loss)]
    return max(finite) / min(finite), median(finite) / min(finite)


def accuracy_rows(judged: Sequence[Search]) -> Iterator[Row]:
    """Of searches of one task, a row for each measure that their examples have."""
    for measure in Measure:
        shares = [_shares(one, measure) for one in judged]
        if not all(shares):
            continue
        best = [100 * max(found) for found in shares]
        worst, deviation = spread_of([100 * (max(found) - min(found)) for found in shares])
        untuned = mean_of_known(
            one.untuned.share(measure) for one in judged if one.untuned is not None
        )
        yield Row(
            name_of(judged[0].task),
            measure.value,
            max(map(len, shares)),
            len(judged),
            fmean(best),
            worst,
            deviation,
            fmean(100 * (max(found) - median(found)) for found in shares),
            None if untuned is None else 100 * untuned,
            _PAPER.get(measure.value),
        )


def no_accuracies(names: Sequence[str]) -> tuple[str, ...]:
    """A sentence on the tasks of whose full grids nobody judged the adapters, if there are any."""
    return (f"No accuracies recorded of full grids: {', '.join(names)}.",) if names else ()


def exhibit(folder: Path = RECORDED) -> Exhibit:
    groups = by_seed(shown_sets(4, folder))
    losses = {group[0].name: [curves.best.tolist() for curves in group] for group in groups}
    by_model = _sweep(_SWEEP)
    rows = [_loss_row(name, found) for name, found in losses.items()]
    own, sweep = list(rows), _sweep_row(by_model)
    full = [one for one in searches(folder) if not one.has_exits]
    judged = by_task((one for one in full if one.untuned is not None), lambda one: one.task)
    accuracies = [row for group in judged for row in accuracy_rows(group)]
    unjudged = by_task((one for one in full if one.untuned is None), lambda one: one.task)
    names = [name_of(group[0].task) for group in unjudged]
    rows += [sweep, *accuracies]
    seeds = {group[0].name: [seed_of(curves.task) for curves in group] for group in groups}
    return Exhibit(
        verdict=_verdict(own, accuracies) if recorded_sets(folder) else Verdict.CANNOT,
        gist=f"The worst loss of a grid is {min(row.worst for row in own):.1f} to "
        f"{max(row.worst for row in own):.1f} times the best (paper 5.1 to 11.0)."
        + _told_points(accuracies),
        found=(
            *(
                f"{row.task}: worst {row.worst:.2f} times the best, median {row.median:.3f}."
                for row in [*own, sweep]
            ),
            *map(_told_accuracy, accuracies),
            *no_accuracies([name for name in names if name not in {r.task for r in accuracies}]),
            _reach(by_model),
        ),
        table=Table(
            (
                "task", "measure", "jobs", "seeds", "best", "worst against best", "deviation",
                "median against best", "untuned", "paper, worst against best",
            ),
            tuple(rows),
        ),
        logs=(
            *origins(curves for group in groups for curves in group),
            "`traces/sweeps/tinker_sft_sweep.csv`",
            *(f"answers beside `{one.origin}`" for group in judged for one in group),
        ),
        seeds=told_seeds(seeds.items()),
        figure=_draw(losses, by_model, [one for group in judged for one in group]),
    )  # fmt: skip


def _loss_row(name: str, of_seeds: Sequence[Sequence[float]]) -> Row:
    ratios = [spread(found) for found in of_seeds]
    worst, deviation = spread_of([ratio for ratio, _ in ratios])
    return Row(
        name,
        _LOSS,
        max(map(len, of_seeds)),
        len(of_seeds),
        fmean(map(min, of_seeds)),
        worst,
        deviation,
        fmean(middle for _, middle in ratios),
        None,
        _PAPER[_LOSS],
    )


def _sweep_row(by_model: dict[str, list[float]]) -> Row:
    worst, middle = map(median, zip(*map(spread, by_model.values()), strict=True))
    jobs = sum(map(len, by_model.values()))
    name = f"sweep, median of {len(by_model)} models"
    return Row(name, "final loss", jobs, 1, None, worst, None, middle, None, None)


def _shares(search: Search, measure: Measure) -> list[float]:
    shares = (score.share(measure) for score in search.scores.values())
    return [share for share in shares if share is not None]


def _told_accuracy(row: Row) -> str:
    paper = f"; paper {row.paper}" if row.paper else ""
    untuned = "" if row.untuned is None else f", untuned model {row.untuned:.1f} %"
    return (
        f"{row.task}, {row.measure}: best {row.best:.1f} %, worst {row.worst:.1f} points below "
        f"it, median {row.median:.1f}{untuned} ({row.jobs} jobs{paper})."
    )


def _told_points(accuracies: Sequence[Row]) -> str:
    points = [row.worst for row in accuracies if row.measure == Measure.ANSWERS.value]
    return (
        f" The share of whole answers that are right spreads by {min(points):.0f} to "
        f"{max(points):.0f} points (paper 42.8 and 73.9): a small model has few of them."
        if points
        else ""
    )


def _reach(by_model: dict[str, list[float]]) -> str:
    ratios = [spread(found)[0] for found in by_model.values()]
    usual = [ratio for ratio in ratios if ratio <= _SHOWN]
    return (
        f"How large the ratio is depends on how far the grid reaches: in {len(usual)} of the "
        f"sweep's {len(by_model)} models the worst is at most {max(usual) - 1:.0%} behind, in "
        f"one {max(ratios):.1f} times the best (cut off in the picture). "
        "The median tells what tuning wins over a guess."
    )


def _sweep(path: Path) -> dict[str, list[float]]:
    """Final losses by model."""
    found: dict[str, list[float]] = {}
    for run in read_sweep(path):
        found.setdefault(run.task, []).append(run.loss)
    return found


def _verdict(losses: Sequence[Row], accuracies: Sequence[Row]) -> Verdict:
    """The whole of it needs accuracies of as many tasks as the paper has, spread as far."""
    least = min(row.worst for row in losses)
    if least < _PAPER_LEAST / 2:
        return Verdict.NOT_REPRODUCED
    points = [row.worst for row in accuracies if row.measure == Measure.ANSWERS.value]
    is_spread = len(points) >= _ENOUGH_TASKS and min(points) >= _PAPER_POINTS
    return Verdict.REPRODUCED if is_spread and least >= _PAPER_LEAST else Verdict.PARTLY


def _draw(
    losses: dict[str, list[list[float]]],
    by_model: dict[str, list[float]],
    judged: Sequence[Search],
) -> Figure:
    figure, (ours, sweep, accuracy) = panels_of(3.2, 3)
    colours = dict(zip(losses, cycle(PALETTE), strict=False))
    for name, of_seeds in losses.items():
        for number, found in enumerate(of_seeds):
            ordered = np.sort(np.array(found)[np.isfinite(found)])
            label = None if number else name
            places = np.arange(1, len(ordered) + 1)
            ours.plot(places, ordered / ordered[0], color=colours[name], label=label)
    for found in by_model.values():
        ordered = np.sort(np.array(found))
        sweep.plot(
            np.arange(1, len(ordered) + 1), ordered / ordered[0], color=PALETTE[0], alpha=0.35, lw=1
        )
    ours.set_yscale("log")
    tell_values(ours.yaxis)
    sweep.set_ylim(0.99, _SHOWN)
    ours.set_title("full grids", fontsize=9, color=INK)
    sweep.set_title("a real sweep of 35 models", fontsize=9, color=INK)
    ours.legend(fontsize=7, frameon=False, loc="upper left")
    ours.set_ylabel("best validation loss over the task's best")
    sweep.set_ylabel("final loss over the model's best")
    _draw_accuracies(accuracy, judged, colours)
    for axes in (ours, sweep, accuracy):
        axes.set_xlabel("jobs, best first")
        axes.grid(axis="y", color=GRID)
    return figure


def _draw_accuracies(axes: Axes, judged: Sequence[Search], colours: dict[str, str]) -> None:
    axes.set_title("accuracy, %", fontsize=9, color=INK)
    if not judged:
        axes.text(0.5, 0.5, "no accuracies recorded", ha="center", va="center", color=MUTED)
        axes.set_xticks([])
        axes.set_yticks([])
        return
    for one in judged:
        colour = colours.get(name_of(one.task), INK)
        for measure, style in _STYLES.items():
            ordered = sorted((100 * share for share in _shares(one, measure)), reverse=True)
            if ordered:
                axes.plot(range(1, len(ordered) + 1), ordered, style, color=colour)
    for measure, style in _STYLES.items():
        if any(_shares(one, measure) for one in judged):
            colour = INK if measure is Measure.PREFERRED else MUTED  # of a task without a colour
            axes.plot([], [], style, color=colour, label=measure.value)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
