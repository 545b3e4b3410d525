"""A shared cluster: how busy, and how large.

The paper: 11 tasks at once on 8 GPUs, durations as profiled; no arrivals, no errors.

Here: 16 tasks of figure 12's models that need one GPU or two. They come in random order, at a
stated share of the cluster's capacity, with generated losses, and `alto` and `Planner` decide.
First the load is varied, then the number of GPUs at a load of 0.8. *Slowdown* is a task's time from
its arrival to its end, over its time alone. `exhibits/past_profile_error.py` tells what errors of a
profile do.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from alto_policy.controller import Controller, run
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner
from alto_policy.policies.alto import Alto, AltoSettings
from alto_runs.costs.durations import ExpectedExits, TaskDurations
from alto_runs.costs.ranks_in_step import RanksInStep
from alto_runs.costs.sharded import Sharded
from alto_runs.costs.step_profile import StepProfile
from alto_runs.outcomes.history import Follower
from alto_runs.outcomes.metrics import measure
from alto_runs.profile import read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of, tell_values
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.machines.hardware import gpus_of
from alto_sim.workloads.generator import PAPER_MIX, DataSize, Poisson, TaskMix, arrivals_at_load
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit", "mean_slowdown"]

_SEEDS, _TASKS = 12, 16
_LOADS, _SIZES = (0.5, 0.7, 0.8, 0.9), (4, 8, 16)
_AXES = {"load": "load on 8 GPUs", "GPUs": "GPUs at a load of 0.8"}
_USUAL = (0.8, 8)  # load, GPUs
_MIX = TaskMix(
    models=tuple(
        replace(model, search=replace(model.search, batch_sizes=(2, 8)))
        for model in PAPER_MIX.models
        if model.num_gpus <= 2
    ),
    data=DataSize(median=2_000),
    lengths=((256, 1.0),),
    reports=10,
)


def mean_slowdown(load: float, num_gpus: int, seed: int) -> float:
    """Over the tasks of one simulated run."""
    times = _times()

    durations = TaskDurations(
        times, times.memory_model, start_seconds=DEFAULT_LATENCIES.load, exits=ExpectedExits()
    )
    arrivals = arrivals_at_load(
        _MIX,
        Poisson(),
        count=_TASKS,
        seed=seed,
        seconds=durations.seconds,
        num_gpus=num_gpus,
        load=load,
    )
    workload = Workload(
        arrivals=arrivals,
        curves=GeneratedCurves([arrival.task for arrival in arrivals], seed=seed),
        step_time=times,
        latencies=DEFAULT_LATENCIES,
        measured={arrival.task.id: times.memory_model(arrival.task) for arrival in arrivals},
    )
    gpus = gpus_of(num_gpus)
    cluster = Cluster(gpus)
    follower = Follower(cluster)
    policy = Alto(AltoSettings(), Planner(durations))
    policy.move_tokens = None  # jobs stay where they were launched
    run(Controller(policy, cluster, follower.observe), SimBackend(workload, gpus))
    metrics = measure(follower.history())
    return fmean(
        metrics.tasks[arrival.task.id].makespan_seconds / durations.seconds(arrival.task)
        for arrival in arrivals
    )


def exhibit() -> Exhibit:
    moved: dict[str, tuple[float | int, ...]] = {
        "load": _LOADS,
        "GPUs": _SIZES,
    }
    rows: list[tuple[str, float, float, float, float]] = []
    for position, (name, values) in enumerate(moved.items()):
        for value in values:
            case = [*_USUAL[:position], value, *_USUAL[position + 1 :]]
            found = [_slowdown(float(case[0]), int(case[1]), seed) for seed in range(_SEEDS)]
            rows.append((name, float(value), fmean(found), min(found), max(found)))
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=_gist(rows),
        found=tuple(
            f"{row[0]} {row[1]:g}: mean slowdown {row[2]:.2f}, from {row[3]:.2f} to {row[4]:.2f} "
            "over seeds."
            for row in rows
        ),
        table=Table(("moved", "value", "mean slowdown", "least", "most"), tuple(rows)),
        logs=("`kernels/profiles/h100.jsonl`", f"generated losses, seeds 0 to {_SEEDS - 1}"),
        seeds=f"Means over {_SEEDS} seeds; bars from the least to the most of them.",
        figure=_draw(rows, list(moved)),
    )


def _gist(rows: Sequence[tuple[str, float, float, float, float]]) -> str:
    told = {
        name: ", ".join(f"{row[2]:.1f} at {row[1]:g}" for row in rows if row[0] == name)
        for name in dict.fromkeys(row[0] for row in rows)
    }
    return f"Mean slowdown by load: {told['load']}; by the number of GPUs: {told['GPUs']}."


@cache
def _slowdown(load: float, num_gpus: int, seed: int) -> float:
    return mean_slowdown(load, num_gpus, seed)


@cache
def _times() -> Sharded:
    rows = read_profile(shipped_profile())
    return Sharded(StepProfile(rows), RanksInStep(StepProfile(rows, recompute=True)))


def _draw(rows: Sequence[tuple[str, float, float, float, float]], names: Sequence[str]) -> Figure:
    figure, panels = panels_of(2.8, len(names))
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row[0] == name]
        axes.errorbar(
            [row[1] for row in own],
            [row[2] for row in own],
            yerr=([row[2] - row[3] for row in own], [row[4] - row[2] for row in own]),
            marker="o",
            capsize=3,
            color=PALETTE[0],
            ecolor=INK,
        )
        axes.set_xlabel(_AXES[name])
        axes.set_xscale("log" if name == "GPUs" else "linear")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks([row[1] for row in own], [f"{row[1]:g}" for row in own])
        axes.set_yscale("log")
        axes.set_ylim(0.95, 1.15 * max(row[4] for row in rows))
        tell_values(axes.yaxis)
        axes.grid(axis="y", color=GRID)
    panels[0].set_ylabel("mean slowdown of a task, times")
    return figure
