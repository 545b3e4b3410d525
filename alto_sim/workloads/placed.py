"""A workload on the GPUs that it is to be simulated on: their times, memory and names."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

from alto_policy.types import Task
from alto_runs.costs.kinds import Mixture
from alto_runs.costs.machine_costs import CHOSEN, ExecutorChoices, Machine
from alto_runs.costs.step_profile import StepProfile, weakest
from alto_runs.result import STEP_TIMES
from alto_sim.machines.nodes import Nodes
from alto_sim.workloads.workload import Workload, on_mixture, profiled

__all__ = ["Facts", "Placed", "at_speeds", "placed"]

Facts = tuple[tuple[str, str], ...]  # for the header of a log

log = logging.getLogger(__name__)

_MOST_NAMES = 5  # of tasks that are told of


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    workload: Workload
    gpu: str  # its kind, or all of them
    facts: Facts


def placed(
    workload: Workload, machine: StepProfile | Nodes, choices: ExecutorChoices = CHOSEN
) -> Placed:
    """Where nodes are of several kinds, on the costs of each. Raises UserError."""
    profiles = {machine.gpu: machine} if isinstance(machine, StepProfile) else machine.profiles
    costs = {kind: Machine(profile, choices) for kind, profile in profiles.items()}
    if isinstance(machine, Nodes) and len(costs) > 1:
        workload = on_mixture(workload, Mixture(costs), machine.counts)
        _warn_of_misfits(_tasks(workload))
    else:
        (profile,) = profiles.values()
        workload = profiled(workload, profile, choices)
    basis = weakest(
        each.basis(task for task in _tasks(workload) if task.fits_on(kind))
        for kind, each in costs.items()
    )
    names, kernels = ", ".join(profiles), next(iter(profiles.values())).kernels
    facts = (("profile", f"{names}, {kernels}"), (STEP_TIMES, basis.value))
    return Placed(workload=workload, gpu=names, facts=facts)


def at_speeds(workload: Workload, nodes: Nodes) -> Placed:
    """Jobs that last as long as they lasted, but for the speeds of the nodes. Raises UserError."""
    speeds = nodes.speeds()
    told = ", ".join(f"{kind} {speed:g}" for kind, speed in speeds.items())
    workload = replace(workload, speeds=speeds)
    if len(speeds) > 1:
        arrivals = (
            replace(each, task=replace(each.task, kinds=tuple(speeds), speeds=(*speeds.values(),)))
            for each in workload.arrivals
        )
        workload = replace(workload, arrivals=tuple(arrivals))
    return Placed(workload=workload, gpu=", ".join(speeds), facts=(("speeds", told),))


def _tasks(workload: Workload) -> Iterable[Task]:
    return (arrival.task for arrival in workload.arrivals)


def _warn_of_misfits(tasks: Iterable[Task]) -> None:
    """Of those that every policy will reject."""
    rejected = [task for task in tasks if task.kinds == ()]
    if rejected:
        names = ", ".join(task.id for task in rejected[:_MOST_NAMES])
        more = f" and {len(rejected) - _MOST_NAMES} more" if len(rejected) > _MOST_NAMES else ""
        log.warning(
            "no kind of GPU holds a job of %s%s, or there are too few for its width: rejected",
            names,
            more,
        )
