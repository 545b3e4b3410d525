"""Figure 10: the best that was found, against what experts recommend.

The paper: Unsloth's and Tinker's settings against ALTO's best. GSM8K accuracy: Llama 43.5, 42.3,
49.5; Qwen 60.3, 60.9, 62.6. Tulu-3 loss: Llama 0.763, 0.760, 0.744; Qwen 0.668, 0.691, 0.666.
OpenThoughts3 loss: Llama 0.999, 1.029, 1.027; Qwen 0.895, 0.926, 0.920.

Here: on the full grids, the job of the grid that is nearest to each recommendation, against what
`alto` finds. Unsloth's notebooks: rate 2e-4, rank 16, batch 8. LLaMA-Factory's LoRA examples: rate
1e-4, rank 8, batch 8. And ALTO's own defaults for a job.

The paper against itself: the text says that ALTO matches or exceeds the experts everywhere, but on
OpenThoughts3 the printed losses of Unsloth's settings are lower for both models.
"""

import math
from collections.abc import Sequence
from itertools import combinations

from alto_policy.policies.alto import AltoSettings
from alto_policy.types import Hyperparameters
from alto_runs.report.drawing import GRID, INK, PALETTE, figure_of
from experiments.curve_sets import CurveSet, origins, recorded_sets, shown_sets
from experiments.exhibit import Exhibit, Table, verdict_over
from experiments.judging import judge
from experiments.table_backend import play_policy

__all__ = ["exhibit", "nearest"]

_EXPERTS = {
    "Unsloth": Hyperparameters(learning_rate=2e-4, rank=16, batch_size=8),
    "LLaMA-Factory": Hyperparameters(learning_rate=1e-4, rank=8, batch_size=8),
    "ALTO's default job": Hyperparameters(),
}


_LABELS = {"alto": "found by alto", "ALTO's default job": "ALTO's default job, not searched"}


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


def exhibit() -> Exhibit:
    sets = shown_sets(4)
    rows: list[tuple[str, str, str, float, float]] = []
    for curves in sets:
        best = float(curves.best.min())
        for name, wanted in _EXPERTS.items():
            row = nearest(curves, wanted)
            chosen = curves.task.jobs[row].hyperparameters
            job = f"{chosen.learning_rate:g}, {chosen.rank}, {chosen.samples_per_step}"
            loss = float(curves.best[row])
            rows.append((curves.name, name, job, loss, loss / best - 1))
        regret = judge(curves, play_policy(curves, AltoSettings())).regret
        rows.append((curves.name, "alto", "", best * (1 + regret), regret))
    ours = {row[0]: row[4] for row in rows if row[1] == "alto"}
    experts = [row for row in rows if row[1] != "alto"]
    holds = [all(ours[row[0]] <= row[4] for row in experts if row[0] == name) for name in ours]
    figure, axes = figure_of(3.2)
    names = [*_EXPERTS, "alto"]
    for number, name in enumerate(names):
        heights = [100 * row[4] for row in rows if row[1] == name]
        places = [place + 0.2 * (number - 1.5) for place in range(len(heights))]
        drawn = axes.bar(
            places, heights, 0.19, color=PALETTE[(number + 1) % 4], label=_LABELS.get(name, name)
        )
        axes.bar_label(drawn, fmt="%.2f", fontsize=7, color=INK)
    axes.set_xticks(range(len(sets)), [curves.name for curves in sets], fontsize=8)
    axes.set_ylabel("loss above the grid's best, %")
    axes.grid(axis="y", color=GRID)
    axes.legend(fontsize=7, frameon=False)
    return Exhibit(
        verdict=verdict_over(holds if recorded_sets() else ()),
        found=(
            *(
                f"{row[0]}: {row[1]} (rate, rank, batch: {row[2]}) is {row[4]:.2%} behind the "
                f"grid's best, alto {ours[row[0]]:.2%}."
                for row in experts
            ),
            *_twins(experts),
        ),
        table=Table(("task", "settings", "rate, rank, batch", "best loss", "behind"), tuple(rows)),
        logs=origins(sets),
        seeds="One seed a job, no error bars.",
        figure=figure,
    )


def _twins(experts: Sequence[tuple[str, str, str, float, float]]) -> tuple[str, ...]:
    """Recommendations that one job of the grid stands for on every task."""
    jobs = {name: [row[2] for row in experts if row[1] == name] for name in _EXPERTS}
    return tuple(
        f"The grid has one job for both {one} and {other}: theirs is one piece of evidence."
        for one, other in combinations(jobs, 2)
        if jobs[one] == jobs[other]
    )
