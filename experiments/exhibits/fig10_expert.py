"""Figure 10: the best that was found, against what experts recommend.

The paper: what is found with Unsloth's, with Tinker's and with ALTO's settings, in this order.
GSM8K accuracy: Llama 43.5, 42.3, 49.5; Qwen 60.3, 60.9, 62.6. Tulu-3 loss: Llama 0.763, 0.760,
0.744; Qwen 0.668, 0.691, 0.666. OpenThoughts3 loss: Llama 0.999, 1.029, 1.027; Qwen 0.895, 0.926,
0.920.

Here: on the full grids, the job of the grid that is nearest to each recommendation, against what
`alto` finds on the same curves, and against the winners of recorded runs with exits. Unsloth's
notebooks: rate 2e-4, rank 16, batch 8. Tinker's cookbook: the rate of the smallest Llama in its
table, 1e-3, rank 32, batch 128. LLaMA-Factory's LoRA examples: rate 1e-4, rank 8, batch 8. And
ALTO's own defaults for a job. Where the grid ends the nearest may be far: at rank 16 and batch 8.
Accuracies are those of the adapter of the job's best validation loss, where a run's adapters were
judged: validation answers given word for word, and answer tokens.

The paper against itself: the text says that ALTO matches or exceeds the experts everywhere, but on
OpenThoughts3 the printed losses of Unsloth's settings are lower for both models.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alto_policy.policies.alto import AltoSettings
from alto_policy.types import Hyperparameters
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, verdict_over
from experiments.exhibits.fig01_sensitivity import no_accuracies
from experiments.grids.curve_sets import (
    RECORDED,
    CurveSet,
    best_of_seed,
    by_seed,
    origins,
    recorded_sets,
    shown_sets,
)
from experiments.grids.judging import winner
from experiments.grids.same_task import is_same_task, mean_of_known, seed_of, spread_of, told_seeds
from experiments.grids.scores import Measure, Search, scored_as, searches
from experiments.grids.table_backend import play_policy

__all__ = ["Row", "exhibit", "nearest", "rows_of"]

_EXPERTS = {
    "Unsloth": Hyperparameters(learning_rate=2e-4, rank=16, batch_size=8),
    "Tinker": Hyperparameters(learning_rate=1e-3, rank=32, batch_size=128),
    "LLaMA-Factory": Hyperparameters(learning_rate=1e-4, rank=8, batch_size=8),
    "ALTO's default job": Hyperparameters(),
}
_COLOURS = (PALETTE[1], PALETTE[4], PALETTE[2], PALETTE[3], PALETTE[0])
_NAME_WIDTH = 14  # letters of a line below a group of bars
_ALTO, _RECORDED = "alto", "alto, recorded"
_LABELS = {_ALTO: "found by alto", "ALTO's default job": "ALTO's default job, not searched"}
# GSM8K accuracy, Llama and Qwen.
_PAPER = {"Unsloth": "43.5, 60.3", "Tinker": "42.3, 60.9", _ALTO: "49.5, 62.6"}


class Row(NamedTuple):
    """Means over seeds."""

    task: str
    settings: str
    job: str  # rate, rank, batch
    loss: float
    behind: float  # of the grid's best
    deviation: float | None  # of `behind`, over seeds
    answers: float | None  # per cent
    tokens: float | None
    paper: str | None


class _One(NamedTuple):
    """Of one seed."""

    job: str
    loss: float
    behind: float
    answers: float | None  # per cent
    tokens: float | None


def nearest(curves: CurveSet, wanted: Hyperparameters) -> int:
    """Row of the job whose learning rate, rank and batch size are least doublings away."""

    def distance(chosen: Hyperparameters) -> float:
        pairs = (
            (chosen.learning_rate, wanted.learning_rate),
            (chosen.rank, wanted.rank),
            (chosen.samples_per_step, wanted.samples_per_step),
        )
        return sum(abs(math.log2(a / b)) for a, b in pairs)

    distances = [distance(job.hyperparameters) for job in curves.task.jobs]
    return distances.index(min(distances))


def rows_of(
    group: Sequence[CurveSet], scored: Sequence[Search | None], recorded: Sequence[Search]
) -> Iterator[Row]:
    """Of one task: its grids by seed, the judged search of each, and its runs with exits."""
    name = group[0].name
    pairs = list(zip(group, scored, strict=True))
    for expert, wanted in _EXPERTS.items():
        yield _row(name, expert, [_of_job(s, nearest(s, wanted), by) for s, by in pairs])
    yield _row(name, _ALTO, [_found(curves, by) for curves, by in pairs])
    if recorded:
        yield _row(name, _RECORDED, [_ended(group, runs) for runs in _of_each_seed(recorded)])


def exhibit(folder: Path = RECORDED) -> Exhibit:
    groups = by_seed(shown_sets(4, folder))
    rows: list[Row] = []
    unjudged: list[str] = []
    for group in groups:
        scored = [scored_as(curves, folder) for curves in group]
        recorded = [one for one in searches(folder) if _is_with_exits(one, group[0])]
        rows += rows_of(group, scored, recorded)
        if not any(scored):
            unjudged.append(group[0].name)
    ours = {row.task: row.behind for row in rows if row.settings == _ALTO}
    experts = [row for row in rows if row.settings in _EXPERTS]
    holds = [all(ours[n] <= row.behind for row in experts if row.task == n) for n in ours]
    seeds = [(group[0].name, [seed_of(curves.task) for curves in group]) for group in groups]
    return Exhibit(
        verdict=verdict_over(holds if recorded_sets(folder) else ()),
        gist=f"On {sum(holds)} of {len(holds)} tasks the job that `alto` finds has a loss no "
        "higher than that of any setting that experts recommend.",
        found=(
            *(_told_losses(task, rows) for task in ours),
            *(text for task in ours if (text := _told_accuracies(task, rows)) is not None),
            *no_accuracies(unjudged),
            *_twins(experts),
        ),
        table=Table(
            (
                "task", "settings", "rate, rank, batch", "best loss", "behind", "deviation",
                "whole answers, %", "answer tokens, %", "paper, GSM8K accuracy",
            ),
            tuple(rows),
        ),
        logs=origins(curves for group in groups for curves in group),
        seeds=told_seeds(seeds),
        figure=_draw(rows),
        shown_rows=len(rows),
    )  # fmt: skip


def _of_job(curves: CurveSet, row: int, scored: Search | None) -> _One:
    chosen, loss = curves.task.jobs[row].hyperparameters, float(curves.best[row])
    score = scored.scores.get(chosen) if scored is not None else None
    return _One(
        f"{chosen.learning_rate:g}, {chosen.rank}, {chosen.samples_per_step}",
        loss,
        loss / float(curves.best.min()) - 1,
        _percent(score.share(Measure.ANSWERS)) if score else None,
        _percent(score.share(Measure.TOKENS)) if score else None,
    )


def _found(curves: CurveSet, scored: Search | None) -> _One:
    """By `alto` on the curves; its adapter is the judged one if it got to the job's best report."""
    play = play_policy(curves, AltoSettings())
    row, is_best = winner(curves, play)
    one = _of_job(curves, row, scored if is_best else None)
    loss = min(v for v in curves.val[list(play.rows), list(play.columns)] if math.isfinite(v))
    return one._replace(job="", loss=float(loss), behind=loss / float(curves.best.min()) - 1)


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _of_each_seed(runs: Sequence[Search]) -> list[list[Search]]:
    seeds = sorted({run.seed for run in runs})
    return [[run for run in runs if run.seed == seed] for seed in seeds]


def _ended(group: Sequence[CurveSet], runs: Sequence[Search]) -> _One:
    """The winners of a seed's runs, against the grid of that seed, or the best of other seeds."""
    best = best_of_seed(group, runs[0].seed)
    loss = fmean(run.best_loss for run in runs)
    answers, tokens = (
        mean_of_known(_percent(run.of_winner(measure)) for run in runs)
        for measure in (Measure.ANSWERS, Measure.TOKENS)
    )
    return _One("", loss, loss / best - 1, answers, tokens)


def _row(task: str, settings: str, found: Sequence[_One]) -> Row:
    behind, deviation = spread_of([one.behind for one in found])
    return Row(
        task,
        settings,
        "; ".join(dict.fromkeys(one.job for one in found)),
        fmean(one.loss for one in found),
        behind,
        deviation,
        mean_of_known(one.answers for one in found),
        mean_of_known(one.tokens for one in found),
        _PAPER.get(settings),
    )


def _is_with_exits(search: Search, curves: CurveSet) -> bool:
    """A whole run of that task under `alto` as it stands."""
    is_alto = search.policy == AltoSettings()
    return is_alto and search.is_whole and is_same_task(search.task, curves.task)


def _told_losses(task: str, rows: Sequence[Row]) -> str:
    told = ", ".join(f"{row.settings} {row.behind:.2%}" for row in rows if row.task == task)
    return f"{task}, loss above the grid's best: {told}."


def _told_accuracies(task: str, rows: Sequence[Row]) -> str | None:
    """None where no adapter was judged."""
    told = ", ".join(
        f"{row.settings} {row.answers:.1f} and {row.tokens:.1f} %"
        for row in rows
        if row.task == task and row.answers is not None and row.tokens is not None
    )
    return f"{task}, answers given word for word, and answer tokens: {told}." if told else None


def _twins(experts: Sequence[Row]) -> tuple[str, ...]:
    """Recommendations that one job of the grid stands for on every task."""
    jobs = {name: [row.job for row in experts if row.settings == name] for name in _EXPERTS}
    return tuple(
        f"The grid has one job for both {one} and {other}: theirs is one piece of evidence."
        for one, other in combinations(jobs, 2)
        if jobs[one] == jobs[other]
    )


def _draw(rows: Sequence[Row]) -> Figure:
    tasks = list(dict.fromkeys(row.task for row in rows))
    drawn = [row for row in rows if row.settings in (*_EXPERTS, _ALTO)]
    judged = [task for task in tasks if any(r.task == task and r.tokens is not None for r in drawn)]
    figure, panels = panels_of(3.2, 2 if judged else 1)
    _bars(panels[0], tasks, rows, _behind, "%.1f")
    panels[0].set_ylabel("loss above the grid's best, %")
    panels[0].legend(fontsize=7, frameon=False)
    if judged:
        known = [row for row in drawn if row.tokens is not None]
        _bars(panels[1], judged, known, lambda row: row.tokens or 0.0, "%.0f")
        panels[1].set_ylabel("answer tokens right, %")
    return figure


def _behind(row: Row) -> float:
    return 100 * row.behind


def _bars(
    axes: Axes, tasks: Sequence[str], rows: Sequence[Row], height: Callable[[Row], float], form: str
) -> None:
    for number, name in enumerate((*_EXPERTS, _ALTO)):
        own = [row for row in rows if row.task in tasks and row.settings == name]
        heights = [height(row) for row in own]
        places = [tasks.index(row.task) + 0.17 * (number - 2) for row in own]
        colour = _COLOURS[number]
        axes.bar(places, heights, 0.16, color=colour, label=_LABELS.get(name, name))
        for place, row in zip(places, own, strict=True):
            above = height(row)
            if height is _behind and row.deviation is not None:
                axes.errorbar(place, above, 100 * row.deviation, color=INK, capsize=2)
                above += 100 * row.deviation  # clear of the error bar
            told = form % height(row)
            axes.annotate(
                told, (place, above), (0, 3), textcoords="offset points", rotation=90,
                ha="center", va="bottom", fontsize=7, color=INK,
            )  # fmt: skip
    axes.set_xticks(range(len(tasks)), [fill(task, _NAME_WIDTH) for task in tasks], fontsize=8)
    axes.margins(y=0.16)
    axes.grid(axis="y", color=GRID)
