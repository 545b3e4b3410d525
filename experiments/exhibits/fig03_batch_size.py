"""Figure 3: are small batches best?

The paper: metric against batch size 1 to 1,024. Validation loss moves within 0.42-0.45 (GSM8K),
0.708-0.716 (Tulu-3), 1.30-1.35 (OpenThoughts3), by the ticks of its axes, and DPO reward accuracy,
from batch 4 on, within 0.54-0.78 (UltraFeedback); the best is at 16 or below, and worse beyond 32.

Here: the best validation loss over learning rates for each batch size of the grids' and each rank,
at equal samples, and at a tenth, a third and the whole of the budget: is the best batch the same
for every rank and amount of training? Amounts of data are compared between sets, three epochs each,
which differ in all else too, and within a set by the grids of less or more of its data that lie in
`traces/sizes`. The paper's claim is about 16 and 32: it is judged on tasks whose searches with such
batches lie in `traces/batches` or `traces/sizes`, and cannot be tested on the others, nor on
preferences, of which nearly every job gets all right (figure 1). In the picture the amounts of
training are above, and below the ranks at the whole budget.

The paper against itself: it cites arXiv 2602.09492, by which the best batch is not small everywhere
but depends on rank, data and model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alto_runs.report.drawing import GRID, INK, PALETTE, grid_of
from experiments.exhibits.exhibit import Exhibit, Table, verdict_over
from experiments.grids.curve_sets import (
    RECORDED,
    CurveSet,
    by_seed,
    origins,
    recorded_sets,
    shown_sets,
)
from experiments.grids.same_task import seed_of, spread_of, told_seeds

__all__ = [
    "Row",
    "best_by_batch",
    "best_of",
    "compared_seeds",
    "exhibit",
    "holds_claim",
    "samples_of",
    "told_amounts",
]

_SHARES = (0.1, 0.33, 1.0)  # of a job's samples: how much data
_NAME_WIDTH = 16  # letters of a line above a panel
_BESIDE = 0.08  # of the distance between two batch sizes
_SMALL, _LARGE = 16, 32  # the paper: the best is not above the first, and it is worse from here on
_BATCHES, _SIZES = RECORDED.with_name("batches"), RECORDED.with_name("sizes")

Searches = Sequence[CurveSet]
"""Of one task and one seed."""


class Row(NamedTuple):
    task: str
    rank: str
    trained: float
    best: int  # batch
    worst: float  # batch's loss above the best one's; the mean over seeds
    deviation: float | None


def best_by_batch(searches: Searches, share: float, rank: int | None = None) -> dict[int, float]:
    """Least validation loss up to the share of the samples, over learning rates, by batch size."""
    best: dict[int, float] = {}
    for curves in searches:
        columns = max(1, round(share * curves.num_reports))
        known = np.where(np.isfinite(curves.val), curves.val, np.inf)[:, :columns].min(axis=1)
        for job, loss in zip(curves.task.jobs, known, strict=True):
            chosen = job.hyperparameters
            if rank is None or chosen.rank == rank:
                size = chosen.samples_per_step
                best[size] = min(best.get(size, np.inf), float(loss))
    return dict(sorted(best.items()))


def compared_seeds(group: Sequence[CurveSet]) -> list[list[CurveSet]]:
    """Of a task's searches those of each seed that was tried with as many batch sizes as any."""
    seeds = sorted({seed_of(curves.task) for curves in group})
    searches = [[curves for curves in group if seed_of(curves.task) == seed] for seed in seeds]
    most = max(len(best_by_batch(each, 1.0)) for each in searches)
    return [each for each in searches if len(best_by_batch(each, 1.0)) == most]


def holds_claim(seeds: Sequence[Searches]) -> bool | None:
    """Whether the paper's claim does, in the mean; None where no batch was large, or none small."""
    behind = _behind(seeds, 1.0)
    if max(behind) < _LARGE or min(behind) >= _SMALL:
        return None
    best, mean = best_of(behind), {size: fmean(found) for size, found in behind.items()}
    return best <= _SMALL and all(mean[size] > mean[best] for size in mean if size >= _LARGE)


def samples_of(seeds: Sequence[Searches]) -> int:
    """That a job of the task trains, at least: steps are rounded up."""
    jobs = (job for each in seeds for curves in each for job in curves.task.jobs)
    return min(job.samples(job.steps) for job in jobs)


def told_amounts(name: str, found: Mapping[int, Sequence[Searches]]) -> str:
    """The best batch size of each amount of data."""
    told = [
        f"{best_of(_behind(found[samples], 1.0))} of {samples:,} samples"
        for samples in sorted(found)
    ]
    return f"{name}, by the amount of data: batch {', '.join(told)} a job."


def _told_between(amounts: Mapping[str, Mapping[int, Sequence[Searches]]]) -> str:
    """The best batch size of each task that all grids have, by its amount of data."""
    whole = sorted((max(found), name) for name, found in amounts.items())
    behind = {name: _behind(amounts[name][samples], 1.0) for samples, name in whole}
    common = set.intersection(*(set(found) for found in behind.values()))
    told = (
        f"{best_of({size: behind[name][size] for size in common})} of {samples:,} samples ({name})"
        for samples, name in whole
    )
    return f"Of the batches that all have, by the amount of data: {', '.join(told)}."


def best_of(behind: Mapping[int, Sequence[float]]) -> int:
    """The batch size whose mean over seeds is the least."""
    return min(behind, key=lambda size: fmean(behind[size]))


def exhibit(folder: Path = RECORDED, batches: Path = _BATCHES, sizes: Path = _SIZES) -> Exhibit:
    groups = by_seed((*shown_sets(4, folder), *recorded_sets(batches)))
    tasks = {group[0].name: compared_seeds(group) for group in groups}
    amounts = {name: {samples_of(seeds): seeds} for name, seeds in tasks.items()}
    for group in by_seed(recorded_sets(sizes)):
        seeds, name = compared_seeds(group), group[0].name
        amounts.setdefault(name, {})[samples_of(seeds)] = seeds
        tasks[f"{name}, {samples_of(seeds):,} samples"] = seeds
    rows = [row for name, seeds in tasks.items() for row in _rows(name, seeds)]
    whole = [row for row in rows if row.rank == "all" and row.trained == 1.0]
    by_cell = [row.best for row in rows if row.rank != "all"]
    smallest = min(size for seeds in tasks.values() for size in _behind(seeds, 1.0))
    claims = [held for seeds in tasks.values() if (held := holds_claim(seeds)) is not None]
    numbers = {name: [seed_of(each[0].task) for each in seeds] for name, seeds in tasks.items()}
    return Exhibit(
        verdict=verdict_over(claims),
        gist=f"In {sum(claims)} of {len(claims)} cases in which large batches were tried, the best "
        "batch size is 16 or less and 32 is worse, as in the paper. But the smallest is the best "
        f"in {by_cell.count(smallest)} of {len(by_cell)} cells of a task, a rank and an amount of "
        "training: which one is depends on all three.",
        found=(
            *(
                f"{row.task}: batch {row.best} is best; the worst batch {row.worst:.2%} behind."
                for row in whole
            ),
            f"Over tasks, ranks and amounts of training the best batch is {smallest} in "
            f"{by_cell.count(smallest)} of {len(by_cell)} cells.",
            _told_between(amounts),
            *(told_amounts(name, found) for name, found in amounts.items() if len(found) > 1),
            f"From the best batch to the worst the loss moves by "
            f"{min(row.worst for row in whole):.1%} to {max(row.worst for row in whole):.1%} "
            "(paper, by the ticks of its axes, 1.1 to 7.1 %).",
            "Each batch size has its own best learning rate in the grid; without that, large "
            "batches look worse than they are.",
        ),
        table=Table(
            ("task", "rank", "trained", "best batch", "worst above best", "deviation"), tuple(rows)
        ),
        logs=origins(c for seeds in tasks.values() for each in seeds for c in each),
        seeds=f"{told_seeds(numbers.items())} Differences of a tenth of a percent are within the "
        "noise of seeds.",
        figure=_draw(tasks),
    )


def _rows(name: str, seeds: Sequence[Searches]) -> list[Row]:
    rows = []
    for rank in (None, *_ranks(seeds)):
        for share in _SHARES:
            behind = _behind(seeds, share, rank)
            best = best_of(behind)
            worst, deviation = spread_of(
                [max(found) for found in zip(*behind.values(), strict=True)]
            )
            told = "all" if rank is None else str(rank)
            rows.append(Row(name, told, share, best, worst, deviation))
    return rows


def _ranks(seeds: Sequence[Searches]) -> list[int]:
    jobs = [job for each in seeds for curves in each for job in curves.task.jobs]
    return sorted({job.hyperparameters.rank for job in jobs})


def _behind(
    seeds: Sequence[Searches], share: float, rank: int | None = None
) -> dict[int, list[float]]:
    """By batch size: its loss above the best batch's, of each seed."""
    found: dict[int, list[float]] = {}
    for each in seeds:
        best = best_by_batch(each, share, rank)
        for size, loss in best.items():
            found.setdefault(size, []).append(loss / min(best.values()) - 1)
    return found


def _draw(tasks: dict[str, list[list[CurveSet]]]) -> Figure:
    """By the amount of training above, by rank below."""
    figure, (above, below) = grid_of(5.4, 2, len(tasks))
    for upper, lower, (name, seeds) in zip(above, below, tasks.items(), strict=True):
        for number, share in enumerate(_SHARES):
            label = f"{share:.0%} of the samples"
            _draw_line(upper, _behind(seeds, share), label, PALETTE[number], number)
        for number, rank in enumerate(_ranks(seeds)):
            label, colour = f"rank {rank}", PALETTE[3 + number]
            _draw_line(lower, _behind(seeds, 1.0, rank), label, colour, number)
        told = "\n".join(fill(part, _NAME_WIDTH) for part in name.split(", "))
        upper.set_title(told, fontsize=8, color=INK)
        lower.set_xlabel("batch size")
        for axes in (upper, lower):
            axes.grid(axis="y", color=GRID)
            axes.tick_params(labelsize=7)
    for axes in (above[0], below[0]):
        axes.set_ylabel("loss above the best\nbatch's, %")
    known = [axes.get_legend_handles_labels() for axes in (above[0], below[0])]
    handles, labels = ([*upper, *lower] for upper, lower in zip(*known, strict=True))
    figure.legend(handles, labels, loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    return figure


def _draw_line(
    axes: Axes, behind: dict[int, list[float]], label: str, colour: str, number: int
) -> None:
    """Error bars of several lines stand beside each other."""
    spreads = [spread_of([100 * one for one in found]) for found in behind.values()]
    axes.errorbar(
        [place + _BESIDE * (number - 1) for place in range(len(behind))],
        [mean for mean, _ in spreads],
        [deviation or 0.0 for _, deviation in spreads] if spreads[0][1] is not None else None,
        marker="o",
        ms=3,
        capsize=2,
        color=colour,
        label=label,
    )
    axes.set_xticks(range(len(behind)), [str(size) for size in behind])
