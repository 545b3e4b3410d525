"""Figure 14: does the best adapter survive early exit, at each batch size?

The paper: Llama-8B on GSM8K, per-adapter batch 1, 2, 4 and 8: accuracy and best validation loss of
the best configuration with and without early exit; with it the best is kept, or is better. No
numbers are printed (figure 10 has 49.5 % for the best).

Here: the jobs of each batch size as a task of their own, once to their ends and once under `alto`:
best validation loss of both, and, where the adapters of the full grid were judged, the share of
validation answers and of their tokens that the adapter of that loss gives. A winner that exits stop
before its own best report has another adapter, which nobody judged. What recorded runs with exits
answer stands below the table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alto_policy.policies.alto import AltoSettings
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, grid_of
from experiments.exhibits.exhibit import Exhibit, Table, verdict_over
from experiments.exhibits.fig01_sensitivity import no_accuracies
from experiments.grids.curve_sets import (
    RECORDED,
    CurveSet,
    by_seed,
    origins,
    recorded_sets,
    shown_sets,
)
from experiments.grids.judging import judge, winner
from experiments.grids.same_task import mean_of_known, name_of, seed_of, spread_of, told_seeds
from experiments.grids.scores import Measure, Search, scored_as, searches
from experiments.grids.table_backend import play_policy

__all__ = ["Row", "exhibit", "of_batch_size", "rows_of"]

_TOLERANCE = 0.005
_TICKS = (0, 0.1, 1, 10, 100, 1000)


class Row(NamedTuple):
    """Means over seeds."""

    task: str
    batch: int
    jobs: int
    loss: float  # best without exits
    loss_with_exits: float
    behind: float
    deviation: float | None  # of `behind`, over seeds
    budget: float
    answers: float | None  # per cent, of the best without exits
    answers_with_exits: float | None
    tokens: float | None
    tokens_with_exits: float | None


def of_batch_size(curves: CurveSet, size: int) -> CurveSet:
    """The jobs of that batch size alone."""
    rows = [
        row
        for row, job in enumerate(curves.task.jobs)
        if job.hyperparameters.samples_per_step == size
    ]
    jobs = tuple(curves.task.jobs[row] for row in rows)
    return replace(
        curves,
        task=replace(curves.task, jobs=jobs),
        train=curves.train[rows],
        val=curves.val[rows],
    )


def rows_of(group: Sequence[CurveSet], scored: Sequence[Search | None]) -> Iterator[Row]:
    """Of one task: its grids by seed, and the judged search of each."""
    for size in sizes_of(group):
        found = [_one(of_batch_size(c, size), by) for c, by in zip(group, scored, strict=True)]
        behind, deviation = spread_of([one.behind for one in found])
        yield Row(
            group[0].name,
            size,
            max(one.jobs for one in found),
            fmean(one.loss for one in found),
            fmean(one.loss_with_exits for one in found),
            behind,
            deviation,
            fmean(one.budget for one in found),
            mean_of_known(one.answers for one in found),
            mean_of_known(one.answers_with_exits for one in found),
            mean_of_known(one.tokens for one in found),
            mean_of_known(one.tokens_with_exits for one in found),
        )


def sizes_of(group: Sequence[CurveSet]) -> list[int]:
    return sorted({job.hyperparameters.samples_per_step for c in group for job in c.task.jobs})


def exhibit(folder: Path = RECORDED) -> Exhibit:
    groups = by_seed(shown_sets(4, folder))
    scored = [[scored_as(curves, folder) for curves in group] for group in groups]
    rows = [row for pair in zip(groups, scored, strict=True) for row in rows_of(*pair)]
    kept = sum(row.behind <= _TOLERANCE for row in rows)
    names = [group[0].name for group in groups]
    holds = [all(r.behind <= _TOLERANCE for r in rows if r.task == name) for name in names]
    unjudged = [name for name, found in zip(names, scored, strict=True) if not any(found)]
    seeds = [[seed_of(curves.task) for curves in group] for group in groups]
    return Exhibit(
        verdict=verdict_over(holds if recorded_sets(folder) else ()),
        gist="The best job that exits leave is within 0.5 % of the best of the full grid in "
        f"{kept} of {len(rows)} pairs of a task and a batch size; on {sum(holds)} of {len(holds)} "
        "tasks, at every batch size.",
        found=(
            f"Within 0.5 % of the best in {kept} of {len(rows)} cells; exactly the best in "
            f"{sum(row.behind == 0 for row in rows)}; at worst "
            f"{max(row.behind for row in rows):.2%} behind.",
            "It cannot be better than without exits here: both see the same curves. Where the "
            "paper finds it better, that is another seed.",
            *_told_accuracies(rows),
            *(_told(one) for one in searches(folder) if one.has_exits and one.untuned is not None),
            *no_accuracies(unjudged),
        ),
        table=Table(
            (
                "task", "batch", "jobs", "best without exits", "best with exits", "behind",
                "deviation", "budget", "answers, %", "with exits", "answer tokens, %",
                "with exits",
            ),
            tuple(rows),
        ),
        logs=origins(curves for group in groups for curves in group),
        seeds=told_seeds(zip(names, seeds, strict=True)),
        figure=_draw(groups, scored, rows),
    )  # fmt: skip


def _one(curves: CurveSet, scored: Search | None) -> Row:
    """Of one seed and batch size."""
    play = play_policy(curves, AltoSettings())
    found, best = judge(curves, play), float(curves.best.min())
    row, is_best = winner(curves, play)
    whole = _accuracies(curves, int(np.argmin(curves.best)), scored)
    exits = _accuracies(curves, row, scored if is_best else None)
    return Row(
        curves.name,
        curves.task.jobs[0].hyperparameters.samples_per_step,
        len(curves.task.jobs),
        best,
        best * (1 + found.regret),
        found.regret,
        None,
        found.budget,
        whole[0],
        exits[0],
        whole[1],
        exits[1],
    )


def _accuracies(
    curves: CurveSet, row: int, scored: Search | None
) -> tuple[float | None, float | None]:
    """Per cent of the answers and of their tokens, of a job at its best validation loss."""
    score = scored.scores.get(curves.task.jobs[row].hyperparameters) if scored else None
    shares = [score.share(measure) if score else None for measure in _MEASURES]
    answers, tokens = (None if share is None else 100 * share for share in shares)
    return answers, tokens


_MEASURES = (Measure.ANSWERS, Measure.TOKENS)


def _told_accuracies(rows: Sequence[Row]) -> Iterator[str]:
    """How many tokens the two winners of each cell get right, where both were judged."""
    known = [row for row in rows if row.tokens is not None and row.tokens_with_exits is not None]
    lost = [(row.tokens or 0.0) - (row.tokens_with_exits or 0.0) for row in known]
    if known:
        yield (
            f"Answer tokens of the winner with exits: no fewer right than without in "
            f"{sum(points <= 0 for points in lost)} of the {len(known)} cells in which both "
            f"winners were judged, at worst {max(0.0, *lost):.1f} points fewer."
        )


def _told(search: Search) -> str:
    """Of a recorded run with exits: how its winner answers, and the untuned model."""
    assert search.untuned is not None
    told = []
    for measure in Measure:
        if (tuned := search.of_winner(measure)) is not None:
            untuned = search.untuned.share(measure)
            beside = "" if untuned is None else f" (untuned model {100 * untuned:.1f} %)"
            told.append(f"{100 * tuned:.1f} % of {_WORDS[measure]}{beside}")
    return (
        f"{name_of(search.task)}, recorded with exits, seed {search.seed} (`{search.origin}`): "
        f"the winner gets {', '.join(told)}."
    )


_WORDS = {
    Measure.ANSWERS: "the answers word for word",
    Measure.TOKENS: "answer tokens",
    Measure.PREFERRED: "pairs right",
}


def _draw(
    groups: Sequence[Sequence[CurveSet]],
    scored: Sequence[Sequence[Search | None]],
    rows: Sequence[Row],
) -> Figure:
    """A column for each task; accuracies below the losses, where any were recorded."""
    is_judged = any(search for found in scored for search in found)
    figure, panels = grid_of(5.2 if is_judged else 3.0, 2 if is_judged else 1, len(groups))
    for axes, group in zip(panels[0], groups, strict=True):
        _draw_losses(axes, group, [row for row in rows if row.task == group[0].name])
        axes.set_yticks(_TICKS, [f"{t:g}" for t in _TICKS] if axes is panels[0][0] else [])
        axes.minorticks_off()
    panels[0][0].set_ylabel("loss above the best\nwithout exits, %")
    if is_judged:
        for axes, group, found in zip(panels[1], groups, scored, strict=True):
            own = [row for row in rows if row.task == group[0].name]
            _draw_accuracies(axes, group, found, own)
        panels[1][0].set_ylabel("answer tokens right, %")
    marks = (
        panels[0][0].scatter([], [], s=10, color=MUTED, alpha=0.5, label="a job, without exits"),
        panels[0][0].scatter([], [], s=34, color=PALETTE[0], label="the best with exits"),
        panels[0][0].plot([], [], color=PALETTE[4], lw=1, ls=":", label="0.5 %")[0],
        *(
            [panels[0][0].scatter([], [], s=34, color=PALETTE[1], label="the best without exits")]
            if is_judged
            else []
        ),
    )
    figure.legend(handles=marks, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_losses(axes: Axes, group: Sequence[CurveSet], own: Sequence[Row]) -> None:
    for place, row in enumerate(own):
        for part in (of_batch_size(curves, row.batch) for curves in group):
            losses = part.best
            grey = 100 * (losses[np.isfinite(losses)] / losses.min() - 1)
            axes.scatter([place] * len(grey), grey, s=10, color=MUTED, alpha=0.5, lw=0)
        spread = None if row.deviation is None else 100 * row.deviation
        axes.errorbar(
            place, 100 * row.behind, spread, fmt="o", ms=6, color=PALETTE[0], capsize=3, zorder=3
        )
    axes.axhline(100 * _TOLERANCE, color=PALETTE[4], lw=1, ls=":")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(-0.02, 2000)
    axes.set_xticks(range(len(own)), [str(row.batch) for row in own])
    axes.set_title(group[0].name, fontsize=8, color=INK)
    axes.set_xlabel("batch size")
    axes.grid(axis="y", color=GRID)


def _draw_accuracies(
    axes: Axes, group: Sequence[CurveSet], scored: Sequence[Search | None], own: Sequence[Row]
) -> None:
    axes.set_xticks(range(len(own)), [str(row.batch) for row in own])
    axes.set_xlabel("batch size")
    axes.grid(axis="y", color=GRID)
    if not any(scored):
        axes.text(0.5, 0.5, "no accuracies recorded", transform=axes.transAxes, ha="center",
                  va="center", fontsize=8, color=MUTED)  # fmt: skip
        axes.set_yticks([])
        return
    for place, row in enumerate(own):
        for curves, search in zip(group, scored, strict=True):
            part = of_batch_size(curves, row.batch)
            every = [_accuracies(part, number, search)[1] for number in range(len(part.best))]
            grey = [share for share in every if share is not None]
            axes.scatter([place] * len(grey), grey, s=10, color=MUTED, alpha=0.5, lw=0)
        for share, colour, shift in (
            (row.tokens, PALETTE[1], -0.12),
            (row.tokens_with_exits, PALETTE[0], 0.12),
        ):
            if share is not None:
                axes.scatter(place + shift, share, s=34, color=colour, zorder=3)
