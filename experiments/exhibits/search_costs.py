"""What a search of one task costs on H100s, for each system: simulated from measured passes.

LoRAFusion's is computed, and in its favour: passes as long as they took on one H200 at rank 16
(SPEED.md), no evaluations, nothing for the kernels that do not run at other ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from statistics import fmean

import numpy as np

from alto_policy.controller import Controller, run
from alto_policy.events import LossReported, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.policies import SETTINGS, build
from alto_policy.runlog import Entry
from alto_policy.types import Job, Task
from alto_runs.costs.durations import PassTimes
from alto_runs.costs.machine_costs import ExecutorChoices, Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.costs.storage import Storage
from alto_runs.profile import read_profile, shipped_profile
from alto_sim.cluster.backend import SimBackend
from alto_sim.machines.hardware import gpus_of
from alto_sim.machines.latencies import Latencies
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload
from experiments.grids.curve_sets import CurveSet, TableCurves
from experiments.grids.table_backend import Arrival
from experiments.tuners.results import Result, judged_on_others, read_results

__all__ = [
    "ASHA",
    "BACKBONES",
    "LORAFUSION",
    "PEFT",
    "SYSTEMS",
    "UNBATCHED",
    "WIDE",
    "SearchCost",
    "alone_seconds",
    "profile_of",
    "search_cost",
    "wide_cost",
]

BACKBONES = ("SmolLM2-135M", "Llama-3.2-1B", "Llama-3.1-8B")
PEFT = "PEFT, one after another"
ASHA = "PEFT, Ray Tune's ASHA"
TUNERS = {ASHA: "Ray Tune ASHA", "PEFT, Optuna's median": "Optuna median"}  # and their rules
LORAFUSION = "LoRAFusion, computed"
SYSTEMS = (PEFT, *TUNERS, LORAFUSION, "fifo", "median", "hyperband", "asha", "alto", "alto+")
WIDE = {"Qwen2.5-32B": 2, "Llama-3.1-70B": 4}  # and on how many GPUs the paper trains them
UNBATCHED = "unbatched, our kernels"  # one job at a time, its batch split over the GPUs
# Of a pass of four jobs of 512 tokens with its share of AdamW: of eight such passes in a row, at 8B
# of four. They wait for the host, so fewer tokens take no less.
_FUSED_SECONDS = {
    "SmolLM2-135M": 1.9004 / 8,
    "Llama-3.2-1B": 0.9684 / 8,
    "Llama-3.1-8B": 1.1159 / 4,
}
_FUSED_JOBS = 4  # adapters in a pass, at most
_LOAD_SECONDS = {"SmolLM2-135M": 2.0, "Llama-3.2-1B": 6.0, "Llama-3.1-8B": 30.0}  # assumed

Group = tuple[Sequence[Job], float]  # jobs that train side by side, and their seconds


@dataclass(frozen=True, slots=True)
class SearchCost:
    seconds: float  # until the search has ended
    to_best: float  # until the winner's best report
    regret: float


@cache
def profile_of(kernels: str | None = None) -> StepProfile:
    """The shipped profile, of the product's kernels or of others."""
    return StepProfile(read_profile(shipped_profile()), kernels=kernels)


@cache
def search_cost(curves: CurveSet, backbone: str, system: str) -> SearchCost:
    """The task's jobs on that backbone, with the losses and the lengths of the set."""
    task = replace(curves.task, backbone=backbone, num_gpus=1)
    if system == PEFT:
        return _in_turn(
            curves, list(zip(((job,) for job in task.jobs), alone_seconds(task), strict=True))
        )
    if system == LORAFUSION:
        return _in_turn(curves, _fused_groups(task))
    if system in TUNERS:
        return _under_rule(curves, task, TUNERS[system])
    profile = profile_of()
    latencies = replace(DEFAULT_LATENCIES, load=_LOAD_SECONDS[backbone])
    return _searched(curves, task, profile, profile.memory_model(task), system, latencies)


@cache
def wide_cost(curves: CurveSet, backbone: str, system: str) -> SearchCost:
    """The same of a backbone over several GPUs, as in figure 12; AdamW's moments in 8 bits."""
    is_batched = system != UNBATCHED
    choices = ExecutorChoices(
        storage=Storage(optimizer_states="int8"), max_jobs=None if is_batched else 1
    )
    machine = Machine(profile_of(), choices, adapter_parallel=is_batched)
    task = replace(curves.task, backbone=backbone, num_gpus=WIDE[backbone])
    policy = system if is_batched else "fifo"
    return _searched(curves, task, machine, machine.memory_model(task), policy, DEFAULT_LATENCIES)


def _searched(
    curves: CurveSet,
    task: Task,
    times: PassTimes,
    memory: MemoryModel,
    policy: str,
    latencies: Latencies,
) -> SearchCost:
    workload = Workload(
        arrivals=(TaskArrived(0.0, task),),
        curves=TableCurves(curves),
        step_time=times,
        latencies=latencies,
        measured={task.id: memory},
    )
    entries: list[Entry] = []
    gpus = gpus_of(task.num_gpus)
    controller = Controller(build(SETTINGS[policy]()), Cluster(gpus), entries.append)
    run(controller, SimBackend(workload, gpus))
    reports = [e.event for e in entries if isinstance(e.event, LossReported)]
    best = min((r for r in reports if np.isfinite(r.val_loss)), key=lambda r: (r.val_loss, r.t))
    regret = best.val_loss / float(curves.best.min()) - 1
    return SearchCost(entries[-1].event.t, best.t, regret)


def alone_seconds(task: Task) -> list[float]:
    """Of each job with PEFT alone, a new process for each, sequences at the task's full length."""
    profile = profile_of("peft")
    return [
        _LOAD_SECONDS[task.backbone]
        + job.steps * job.hyperparameters.accumulation * profile.pass_seconds([job], task)
        + job.reports * profile.evaluation_seconds([job], task)
        for job in task.jobs
    ]


def _fused_groups(task: Task) -> list[Group]:
    """Of equal batches, the largest first, as many in a pass as LoRAFusion takes. No pass is
    shorter than ours."""
    groups: list[Group] = []
    for _, equal in groupby(sorted(task.jobs, key=_batch, reverse=True), key=_batch):
        alike = tuple(equal)
        for jobs in (alike[at : at + _FUSED_JOBS] for at in range(0, len(alike), _FUSED_JOBS)):
            own = profile_of().pass_seconds(jobs, task)
            passes = jobs[0].steps * jobs[0].hyperparameters.accumulation
            groups.append((jobs, passes * max(_FUSED_SECONDS[task.backbone], own)))
    (first, seconds), *others = groups
    return [(first, _LOAD_SECONDS[task.backbone] + seconds), *others]


def _batch(job: Job) -> tuple[int, int]:
    return job.hyperparameters.batch_size, job.steps


def _in_turn(curves: CurveSet, groups: Sequence[Group]) -> SearchCost:
    """Every job to its end, one group after another."""
    winner = int(np.argmin(curves.best))
    share = (int(np.nanargmin(curves.val[winner])) + 1) / curves.num_reports
    ids = [{job.id for job in jobs} for jobs, _ in groups]
    (at,) = (place for place, own in enumerate(ids) if curves.task.jobs[winner].id in own)
    seconds = [each for _, each in groups]
    return SearchCost(sum(seconds), sum(seconds[:at]) + share * seconds[at], 0.0)


def _under_rule(curves: CurveSet, task: Task, rule: str) -> SearchCost:
    """The jobs one after another, each until a tuner's own code stops it.

    Every job is begun, and of the rest goes the share of the samples that the rule trained on this
    data: which jobs those were of is not known, and a sample takes as long with each.
    """
    alone = sum(alone_seconds(task))
    begun = len(task.jobs) * _LOAD_SECONDS[task.backbone]
    plays = [one for one in _sequential() if (one.rule, one.task) == (rule, curves.name)]
    return SearchCost(
        begun + fmean(one.budget for one in plays) * (alone - begun),
        fmean(one.time_to_best for one in plays) * alone,
        fmean(one.regret for one in plays),
    )


@cache
def _sequential() -> tuple[Result, ...]:
    """Plays of all rules with jobs one after another, at settings chosen on other tasks."""
    judged, _ = judged_on_others(read_results())
    return tuple(one for one in judged if one.arrival is Arrival.SEQUENTIAL)
