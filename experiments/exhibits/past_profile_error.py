"""How wrong a profile may be, by what is decided with it.

The paper: durations as profiled; no errors.

Here: 32 tasks of the paper's models that need one GPU or two, all at once on 8 GPUs, so that who
waits for whom is all that matters; losses generated. Each policy believes in durations off by a
log-normal factor of sigma 0 to 20 %, one for each task; the truth keeps its own. `sjf` and `srtf`
train every job to its end; `alto` with `Planner` stops the weak ones early, and its planner plans
as if it would not. `fifo` believes nothing. Each run is set beside the one without an error of the
same tasks and losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure

from alto_policy.controller import Controller, run
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.plans import Objective
from alto_policy.policies import Settings, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.policies.srtf import SrtfSettings
from alto_runs.costs.step_profile import StepProfile
from alto_runs.outcomes.history import Follower
from alto_runs.outcomes.metrics import measure
from alto_runs.profile import read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from alto_sim.cluster.backend import SimBackend
from alto_sim.conditions.belief import Belief, BelievedCosts
from alto_sim.conditions.file import Conditions, PlacementRule, believed
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.machines.hardware import gpus_of
from alto_sim.workloads.generator import PAPER_MIX, DataSize, Poisson, TaskMix, generate
from alto_sim.workloads.workload import Workload, profiled
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["Times", "exhibit", "times"]

_ERRORS, _SEEDS, _TASKS, _GPUS = (0.0, 0.05, 0.1, 0.2), 12, 32, 8
_MIX = TaskMix(
    models=tuple(
        replace(model, search=replace(model.search, ranks=(16,), batch_sizes=(2, 8)))
        for model in PAPER_MIX.models
        if model.num_gpus <= 2
    ),
    data=DataSize(median=2_000),
    lengths=((256, 1.0),),
    reports=10,
)
_DECIDED: dict[str, tuple[Settings, Objective | None]] = {
    "fifo": (FifoSettings(), None),
    "sjf": (SjfSettings(), None),
    "srtf": (SrtfSettings(), None),
    "alto, makespan": (AltoSettings(), Objective.MAKESPAN),
    "alto, mean completion": (AltoSettings(), Objective.MEAN_COMPLETION),
}


@dataclass(frozen=True, slots=True)
class Times:
    makespan: float
    completion: float  # mean over the tasks


def times(name: str, error: float, seed: int) -> Times:
    """Of one simulated run; the seed is that of tasks, losses and errors."""
    settings, objective = _DECIDED[name]
    rule = None if objective is None else PlacementRule(objective=objective)
    belief = Belief(error=error, seed=seed)
    workload = _workload(seed)
    costs = BelievedCosts(belief, workload, Path())
    estimate, place = believed(Conditions(belief=belief, placement=rule), workload, costs)
    gpus = gpus_of(_GPUS)
    cluster = Cluster(gpus)
    follower = Follower(cluster)
    policy = build(settings, place, estimate)
    run(Controller(policy, cluster, follower.observe), SimBackend(workload, gpus))
    metrics = measure(follower.history())
    return Times(
        metrics.overall.makespan_seconds,
        fmean(task.makespan_seconds for task in metrics.tasks.values()),
    )


def exhibit() -> Exhibit:
    rows = [
        (name, error, *_beside(name, error, "makespan"), *_beside(name, error, "completion"))
        for name in _DECIDED
        for error in _ERRORS
    ]
    worst = [row for row in rows if row[1] == _ERRORS[-1]]
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=f"A profile that is off by {_ERRORS[-1]:.0%} changes makespans by at most "
        f"{max(abs(row[2] - 1) for row in worst):.1%} and mean completions by "
        f"{max(abs(row[4] - 1) for row in worst):.1%}, in the mean.",
        found=tuple(
            f"{name}: a profile off by {error:.0%} changes the makespan by {makespan - 1:+.1%} and "
            f"the mean completion by {completion - 1:+.1%}."
            for name, error, makespan, _, completion, _ in worst
        ),
        table=Table(
            ("policy", "error", "makespan", "deviation", "mean completion", "its deviation"),
            tuple(rows),
        ),
        logs=("`kernels/profiles/h100.jsonl`", f"generated losses, seeds 0 to {_SEEDS - 1}"),
        seeds="Means and standard deviations, over seeds, of the ratio to the run without error.",
        figure=_draw(rows),
    )


def _beside(name: str, error: float, what: str) -> tuple[float, float]:
    """Mean and deviation over seeds, over the same without an error."""
    ratios = [
        getattr(_times(name, error, seed), what) / getattr(_times(name, 0.0, seed), what)
        for seed in range(_SEEDS)
    ]
    return fmean(ratios), stdev(ratios)


@cache
def _times(name: str, error: float, seed: int) -> Times:
    return times(name, error, seed)


@cache
def _workload(seed: int) -> Workload:
    arrivals = generate(_MIX, Poisson(), count=_TASKS, gap_seconds=0.0, seed=seed)
    curves = GeneratedCurves([arrival.task for arrival in arrivals], seed=seed)
    return profiled(Workload(arrivals=arrivals, curves=curves), _profile())


@cache
def _profile() -> StepProfile:
    return StepProfile(read_profile(shipped_profile()))


def _draw(rows: Sequence[tuple[str, float, float, float, float, float]]) -> Figure:
    figure, panels = panels_of(3.0, 2)
    for place, (axes, title) in enumerate(
        zip(panels, ("makespan", "mean completion"), strict=True)
    ):
        for (number, name), colour in zip(enumerate(_DECIDED), PALETTE, strict=False):
            own = [row for row in rows if row[0] == name]
            axes.errorbar(
                [100 * row[1] + 0.25 * (number - 2) for row in own],  # side by side
                [row[2 + 2 * place] for row in own],
                yerr=[row[3 + 2 * place] for row in own],
                marker="o",
                ms=4,
                capsize=2,
                color=colour,
                label=name,
            )
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlabel("error of the profile, %")
        axes.set_xticks([100 * error for error in _ERRORS])
        axes.grid(axis="y", color=GRID)
    panels[0].set_ylabel("over the run without an error")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return figure
