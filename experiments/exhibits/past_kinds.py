"""A cluster of several kinds of GPU.

The paper: clusters of one kind, H100.

Here: 80 searches of 16 jobs, of an 8B, a 7B and a 32B backbone, arriving at a load of 0.9 on
8 H100, 8 A100 of 80 GB and 4 L40S, which hold no 32B; losses generated. Step times of the A100 and
the L40S are *estimated*: those of the H100, carried over by data sheets. A task's *slowdown* is its
time from arrival to end over its time alone on its fastest kind, every job trained to its end;
*fairness* is Jain's index of the slowdowns, 1 where all are slowed alike. `gavel` moves tasks
between kinds every 360 s, all others leave them where they began; *placed* ones begin where they
are believed to end first, for the mean completion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.controller import Controller, run
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Objective
from alto_policy.policies import SETTINGS, build
from alto_policy.runlog import Entry, RunLog
from alto_policy.types import TaskId
from alto_runs.costs.durations import ExpectedExits, TaskDurations
from alto_runs.costs.kinds import KindDurations
from alto_runs.outcomes.history import Follower
from alto_runs.outcomes.metrics import measure
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from alto_sim.cluster.backend import SimBackend
from alto_sim.machines.nodes import Nodes
from alto_sim.workloads.from_logs import synthetic
from alto_sim.workloads.placed import placed
from alto_sim.workloads.recipe import AtLoad, Recipe
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload
from experiments.exhibits.exhibit import Cell, Exhibit, Table, Verdict

__all__ = ["BARS", "CLUSTER", "Bar", "Fared", "exhibit", "fared", "jain", "workload_of"]

_DATA = Path(__file__).parents[1] / "data"
CLUSTER = _DATA / "mixed_cluster.yaml"
_SEEDS, _TASKS, _LOAD = 5, 80, 0.9
_PANELS = ("mean completion, hours", "makespan, hours", "fairness (Jain)")


@dataclass(frozen=True, slots=True)
class Bar:
    policy: str
    is_placed: bool = False

    @property
    def name(self) -> str:
        return f"{self.policy}, placed" if self.is_placed else self.policy


BARS = (
    Bar("fifo"),
    Bar("fifo", is_placed=True),
    Bar("sjf"),
    Bar("gavel"),
    Bar("alto"),
    Bar("alto", is_placed=True),
)


@dataclass(frozen=True, slots=True)
class Fared:
    """How the tasks of one run did."""

    completion: float  # hours, the mean
    makespan: float
    fairness: float


def fared(bar: Bar, workload: Workload, nodes: Nodes) -> Fared:
    alone = _durations(workload)
    believed = _durations(workload, ExpectedExits() if bar.policy == "alto" else None)
    place = Planner(believed, objective=Objective.MEAN_COMPLETION) if bar.is_placed else None
    policy = build(SETTINGS[bar.policy](), place, alone.seconds)
    cluster = Cluster(nodes.gpus)
    follower = Follower(cluster)
    run(Controller(policy, cluster, follower.observe), SimBackend(workload, nodes.gpus))
    history = follower.history()
    tasks = measure(history).tasks
    return _fared(
        {task.id: tasks[task.id].makespan_seconds for task in history.tasks},
        {task.id: alone.seconds(task) for task in history.tasks},
        history.end,
    )


def _fared(seconds: Mapping[TaskId, float], alone: Mapping[TaskId, float], end: float) -> Fared:
    slowdowns = [seconds[name] / alone[name] for name in seconds]
    return Fared(fmean(seconds.values()) / 3600, end / 3600, jain(slowdowns))


def jain(values: Sequence[float]) -> float:
    """From 1 where they are equal to 1 over their number where all but one are nothing."""
    return sum(values) ** 2 / len(values) / sum(each**2 for each in values)


def exhibit() -> Exhibit:
    runs = {bar: [_of_seed(bar, seed) for seed in range(_SEEDS)] for bar in BARS}
    rows: list[tuple[Cell, ...]] = [
        (bar.name, *(cell for values in _columns(found) for cell in _spread(values)))
        for bar, found in runs.items()
    ]
    plain, best = runs[Bar("fifo")], runs[Bar("fifo", is_placed=True)]
    gavel = runs[Bar("gavel")]
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist="Stopping weak jobs early gains more than placing tasks on the kind that suits them: "
        f"against `fifo` the mean completion is {_gain(runs[Bar('alto')], plain)} times as long by "
        f"`alto`, and {_gain(gavel, plain)} times by `gavel` (estimated).",
        found=(
            "All times are estimated: of two of the three kinds by their data sheets.",
            f"Mean completion over that of `fifo` of the same seed: placed {_gain(best, plain)}, "
            f"`gavel` {_gain(gavel, plain)}, `alto` {_gain(runs[Bar('alto')], plain)}, and "
            f"{_gain(runs[Bar('alto', is_placed=True)], plain)} placed.",
        ),
        table=Table(
            (
                "policy",
                *(f"{what}{part}" for what in _PANELS for part in ("", ", least", ", most")),
            ),
            tuple(rows),
        ),
        logs=(
            "`kernels/profiles/h100.jsonl`",
            "`data/mixed_cluster.yaml` and `data/mixed_cluster_tasks.yaml`",
            f"generated arrivals and losses, seeds 0 to {_SEEDS - 1}",
        ),
        seeds=f"Means over {_SEEDS} seeds; bars from the least to the most of them.",
        figure=_draw(runs),
    )


@cache
def _of_seed(bar: Bar, seed: int) -> Fared:
    nodes = Nodes(CLUSTER)
    return fared(bar, workload_of(_TASKS, seed), nodes)


@cache
def workload_of(num_tasks: int, seed: int) -> Workload:
    """Tasks that arrive at that load, with losses of their own."""
    made = Recipe(
        num_tasks=num_tasks,
        gap=AtLoad(share=_LOAD, cluster=CLUSTER),
        mix=_DATA / "mixed_cluster_tasks.yaml",
        seed=seed,
    ).generated()
    log = RunLog(None, tuple(Entry(arrival, ()) for arrival in made.tasks))
    return placed(synthetic(log, seed=seed), Nodes(CLUSTER)).workload


def _durations(workload: Workload, exits: ExpectedExits | None = None) -> KindDurations:
    assert workload.mixture is not None
    start = DEFAULT_LATENCIES.start + DEFAULT_LATENCIES.load
    return KindDurations(
        workload.mixture,
        lambda costs: TaskDurations(costs, costs.memory_model, start_seconds=start, exits=exits),
    )


def _columns(found: Sequence[Fared]) -> Sequence[Sequence[float]]:
    return (
        [each.completion for each in found],
        [each.makespan for each in found],
        [each.fairness for each in found],
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return fmean(values), min(values), max(values)


def _gain(found: Sequence[Fared], plain: Sequence[Fared]) -> str:
    """Over the same seeds."""
    ratios = [each.completion / other.completion for each, other in zip(found, plain, strict=True)]
    return f"{fmean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _draw(runs: Mapping[Bar, Sequence[Fared]]) -> Figure:
    figure, panels = panels_of(3.0, len(_PANELS))
    names = [bar.name for bar in runs]
    for axes, what, number in zip(panels, _PANELS, range(3), strict=True):
        spreads = [_spread(_columns(found)[number]) for found in runs.values()]
        means = [mean for mean, _, _ in spreads]
        axes.barh(
            names,
            means,
            xerr=(
                [mean - least for mean, least, _ in spreads],
                [most - mean for mean, _, most in spreads],
            ),
            color=[PALETTE[0] if bar.policy == "alto" else MUTED for bar in runs],
            ecolor=INK,
            capsize=2,
        )
        axes.invert_yaxis()
        axes.set_xlabel(what if number == 2 else f"{what} (estimated)")
        axes.grid(axis="x", color=GRID)
        if number:
            axes.set_yticks([])
    return figure
