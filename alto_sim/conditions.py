"""What a simulated cluster is like, and what its policy believes: a YAML file beside the workload.

rows: tuning
gpus_per_node: 4
faults: { node_mtbf: 86400, node_repair: 1800, straggler_share: 0.1, seed: 1 }
latencies: { start: 20, load: 60 }
belief: { profile: another.jsonl, error: 0.2 }
placement: { objective: mean-completion }
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from alto_policy.dispatch import Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.placement import Objective
from alto_policy.planner import Planner
from alto_policy.types import Task
from alto_policy.view import ClusterView
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.machine_costs import Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.cpsat import CpSat
from alto_runs.document import read_document
from alto_runs.errors import UserError
from alto_runs.fields import FieldError, decode_fields, told, unknown_key
from alto_runs.profile import read_profile
from alto_sim.failures import NO_FAULTS, Faults
from alto_sim.latencies import Latencies
from alto_sim.workload import Workload

__all__ = [
    "AS_IT_IS",
    "Belief",
    "Conditions",
    "PlacementRule",
    "Rows",
    "believed",
    "read_conditions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """How the policy comes to the durations of tasks; the truth is the workload's own."""

    profile: str | None = None  # file of the step times that it believes, in place of the true ones
    error: float = 0.0  # sigma of a log-normal factor of median 1 on each task's duration
    seed: int = 0  # of the factors

    def __post_init__(self) -> None:
        if not 0 <= self.error < math.inf:
            raise ValueError(f"error must be at least 0, got {self.error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRule:
    """A search for the order of waiting tasks, by believed durations; see `Planner`."""

    objective: Objective = Objective.MAKESPAN
    nodes: int = 2_000  # orders that the search looks at
    reserve: bool = False
    exact: float | None = None  # deterministic seconds of CP-SAT after it, for makespan alone

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1, got {self.nodes}")
        if self.exact is not None and not 0 < self.exact < math.inf:
            raise ValueError(f"exact must be above 0, got {self.exact}")
        if self.exact is not None and self.objective is not Objective.MAKESPAN:
            raise ValueError(f"exact must be left out for {self.objective.value}, got {self.exact}")


class Rows(StrEnum):
    """What a row of a cluster's trace is read as."""

    RIGID = "rigid"  # a job that lasts as long as it lasted
    TUNING = "tuning"  # a search of the paper's models and grids, drawn; see `retune`


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    rows: Rows = Rows.RIGID
    gpus_per_node: int = 8
    faults: Faults = NO_FAULTS
    latencies: Mapping[str, float] = field(default_factory=dict)  # in place of the workload's own
    belief: Belief | None = None  # what each task says of itself
    placement: PlacementRule | None = None  # first come, first served, or the policy's own order

    @property
    def is_drawn(self) -> bool:
        """Whether another seed changes anything."""
        has_error = self.belief is not None and self.belief.error > 0
        return has_error or replace(self.faults, seed=NO_FAULTS.seed) != NO_FAULTS

    @property
    def is_plain(self) -> bool:
        """Whether the policy knows no more than what the log of its run tells."""
        return self.belief is None and self.placement is None

    def seeded(self, seed: int) -> "Conditions":
        """The same with other dice for every seed but zero."""
        belief = self.belief and replace(self.belief, seed=self.belief.seed + seed)
        faults = replace(self.faults, seed=self.faults.seed + seed)
        return replace(self, belief=belief, faults=faults)

    def around(self, workload: Workload) -> Workload:
        latencies = replace(workload.latencies, **self.latencies)
        return replace(workload, faults=self.faults, latencies=latencies)


AS_IT_IS = Conditions()


def read_conditions(path: Path) -> Conditions:
    """Raises UserError with the field at fault."""
    document = read_document(path)
    try:
        return _parse(document)
    except FieldError as error:
        raise UserError(f"{path}: {told(error, document)}") from error


def believed(
    conditions: Conditions, workload: Workload, folder: Path
) -> tuple[DurationEstimate, Placement | None]:
    """What the policy takes a task to last, and its placement; a profile is seen from `folder`.

    Jobs of a cluster's trace declare their durations; tuning tasks are worked out from step times.
    Raises UserError.
    """
    belief = conditions.belief
    if conditions.is_plain:
        return declared_seconds, None
    belief = belief or Belief()
    if workload.durations:
        if belief.profile is not None:
            raise UserError("belief.profile: the jobs of this trace declare their own durations")
        seconds, remaining = declared_seconds, _declared
    else:
        durations = _durations(belief, workload, folder)
        seconds, remaining = durations.seconds, durations
    error = _Errors(belief)
    rule = conditions.placement

    def estimate(task: Task) -> float:
        return seconds(task) * error.of(task)

    def left(task: Task, cluster: ClusterView) -> float:
        return remaining(task, cluster) * error.of(task)

    return estimate, None if rule is None else _planner(rule, left)


def _planner(rule: PlacementRule, left: Callable[[Task, ClusterView], float]) -> Planner:
    return Planner(
        left,
        objective=rule.objective,
        nodes=rule.nodes,
        reserve=rule.reserve,
        improver=None if rule.exact is None else CpSat(limit=rule.exact),
    )


class _Errors:
    """One factor for each task, whatever the order in which they are asked for."""

    def __init__(self, belief: Belief) -> None:
        self._belief = belief
        self._known: dict[str, float] = {}

    def of(self, task: Task) -> float:
        if self._belief.error == 0:
            return 1.0
        if task.id not in self._known:
            dice = random.Random(f"{self._belief.seed}/belief/{task.id}")
            self._known[task.id] = dice.lognormvariate(0.0, self._belief.error)
        return self._known[task.id]


def _declared(task: Task, cluster: ClusterView) -> float:
    return declared_seconds(task)


def _durations(belief: Belief, workload: Workload, folder: Path) -> TaskDurations:
    times, memory = workload.step_time, workload.memory_of
    if belief.profile is not None:
        machine = Machine(StepProfile(read_profile(folder / belief.profile)))
        times, memory = machine, machine.memory_model
        for arrival in workload.arrivals:
            memory(arrival.task)  # a backbone of unknown shape is said now
    latencies = workload.latencies
    return TaskDurations(times, memory, start_seconds=latencies.start + latencies.load)


def _parse(document: Mapping[str, Any]) -> Conditions:
    given: dict[str, Any] = {}
    known = [each.name for each in fields(Conditions)]
    for name, value in document.items():
        if name not in known:
            raise FieldError((name,), unknown_key(name, known))
        if name == "gpus_per_node":
            if type(value) is not int or value < 1:
                raise FieldError((name,), "expected a whole number, at least 1")
            given[name] = value
            continue
        if name == "rows":
            if value not in list(Rows):
                raise FieldError((name,), f"expected one of {', '.join(Rows)}")
            given[name] = Rows(value)
            continue
        if not isinstance(value, dict):
            raise FieldError((name,), "expected fields with values")
        try:
            given[name] = _latencies(value) if name == "latencies" else _section(name, value)
        except FieldError as error:
            raise error.within(name) from error
    return Conditions(**given)


def _section(name: str, value: Mapping[str, Any]) -> Faults | Belief | PlacementRule:
    match name:
        case "faults":
            return decode_fields(Faults, value)
        case "belief":
            return decode_fields(Belief, value)
        case _:
            return decode_fields(PlacementRule, value)


def _latencies(value: Mapping[str, Any]) -> dict[str, float]:
    known = [each.name for each in fields(Latencies)]
    for name, seconds in value.items():
        if name not in known:
            raise FieldError((name,), unknown_key(name, known))
        is_number = type(seconds) in (int, float)
        if not is_number or not 0 <= seconds < math.inf:
            raise FieldError((name,), "expected seconds, at least 0")
    return {name: float(seconds) for name, seconds in value.items()}
