"""What a simulated cluster is like, and what its policy believes: a YAML file beside the workload.

rows: tuning
gpus_per_node: 4
faults: { node_mtbf: 86400, node_repair: 1800, straggler_share: 0.1, seed: 1 }
latencies: { start: 20, load: 60 }
belief: { profile: another.jsonl, error: 0.2 }
placement: { objective: mean-completion, widths: [1, 2, 4] }
losses: { noise: 0.01, overfit: 0.4 }
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from alto_policy.dispatch import Placement
from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Objective
from alto_policy.types import Task
from alto_policy.view import ClusterView
from alto_runs.costs.durations import ExpectedExits
from alto_runs.cpsat import CpSat
from alto_runs.errors import UserError
from alto_runs.fields import FieldError, decode_fields, told, unknown_key
from alto_sim.conditions.belief import Belief, BelievedCosts
from alto_sim.curves.generated import Shape
from alto_sim.machines.failures import NO_FAULTS, Faults
from alto_sim.machines.latencies import Latencies
from alto_sim.workloads.workload import Workload

__all__ = [
    "AS_IT_IS",
    "Conditions",
    "PlacementRule",
    "Rows",
    "believed",
    "read_conditions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRule:
    """A search for the order of waiting tasks, by believed durations; see `Planner`."""

    objective: Objective = Objective.MAKESPAN
    nodes: int = 2_000  # orders that the search looks at
    reserve: bool = False
    exact: float | None = None  # deterministic seconds of CP-SAT after it, for makespan alone
    widths: tuple[int, ...] = ()  # GPUs that a task may have, else those that it asks for

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"nodes must be at least 1, got {self.nodes}")
        if self.exact is not None and not 0 < self.exact < math.inf:
            raise ValueError(f"exact must be above 0, got {self.exact}")
        if self.exact is not None and self.objective is not Objective.MAKESPAN:
            raise ValueError(f"exact must be left out for {self.objective.value}, got {self.exact}")
        if len(set(self.widths)) < len(self.widths) or min(self.widths, default=1) < 1:
            raise ValueError(f"widths must be at least 1, none twice, got {list(self.widths)}")


class Rows(StrEnum):
    """What a row of a cluster's trace is read as."""

    RIGID = "rigid"  # a job that lasts as long as it lasted
    TUNING = "tuning"  # a search of the paper's models and grids, drawn; see `retune`


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    rows: Rows = Rows.RIGID
    gpus_per_node: int | None = None  # 8, or what the file of a cluster says
    faults: Faults = NO_FAULTS
    latencies: Mapping[str, float] = field(default_factory=dict)  # in place of the workload's own
    belief: Belief | None = None  # what each task says of itself
    placement: PlacementRule | None = None  # first come, first served, or the policy's own order
    losses: Shape | None = None  # of those that are generated

    @property
    def is_drawn(self) -> bool:
        """Whether another seed changes anything."""
        has_error = self.belief is not None and self.belief.error > 0
        return has_error or replace(self.faults, seed=NO_FAULTS.seed) != NO_FAULTS

    @property
    def is_plain(self) -> bool:
        """Whether the policy knows no more than what the log of its run tells."""
        return self.belief is None and self.placement is None

    @property
    def told(self) -> tuple[tuple[str, str], ...]:
        """For a log's header, beside latencies and losses: what the file asks for, but the dice."""
        faults = None if replace(self.faults, seed=NO_FAULTS.seed) == NO_FAULTS else self.faults
        parts = (("faults", faults), ("believed", self.belief), ("placement", self.placement))
        return tuple((name, _told(part)) for name, part in parts if part is not None)

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
    # With a parser that most runs do without.
    from alto_runs.study_fields.document import read_document

    document = read_document(path)
    try:
        return _parse(document)
    except FieldError as error:
        raise UserError(f"{path}: {told(error, document)}") from error


def believed(
    conditions: Conditions, workload: Workload, costs: BelievedCosts
) -> tuple[DurationEstimate, Placement | None]:
    """What the policy takes a task to last, and its placement.

    Jobs of a cluster's trace declare their durations; tuning tasks are worked out from step times.
    """
    if conditions.is_plain:
        return declared_seconds, None
    if workload.durations:
        seconds, remaining = declared_seconds, _declared
    else:
        durations = costs.durations()
        seconds, remaining = durations.seconds, durations
    rule = conditions.placement

    def estimate(task: Task) -> float:
        return seconds(task) * costs.error(task)

    def left(task: Task, cluster: ClusterView) -> float:
        return remaining(task, cluster) * costs.error(task)

    return estimate, None if rule is None else _planner(rule, left)


def _told(part: object) -> str:
    """The fields of a dataclass and their values, as one line; the seed is told elsewhere."""
    if isinstance(part, Faults | Belief | PlacementRule | ExpectedExits):
        values = {each.name: getattr(part, each.name) for each in fields(part)}
        return ", ".join(f"{name} {_told(v)}" for name, v in values.items() if name != "seed")
    if isinstance(part, tuple):
        return " or ".join(map(str, part)) or "as asked for"
    return f"{part:g}" if isinstance(part, float) else "none" if part is None else str(part)


def _planner(rule: PlacementRule, left: Callable[[Task, ClusterView], float]) -> Planner:
    return Planner(
        left,
        objective=rule.objective,
        nodes=rule.nodes,
        reserve=rule.reserve,
        improver=None if rule.exact is None else CpSat(limit=rule.exact),
    )


def _declared(task: Task, cluster: ClusterView) -> float:
    """On its own GPUs where kinds have speeds."""
    executor = cluster.executor(task.id)
    if executor is None or not task.speeds:
        return declared_seconds(task)
    kinds = {gpu.kind for gpu in cluster.gpus if gpu.id in executor.gpus}
    speeds = zip(task.kinds or (), task.speeds, strict=True)
    return declared_seconds(task) / min(speed for kind, speed in speeds if kind in kinds)


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
            raise FieldError((name,), "expected a mapping, { field: value }")
        try:
            given[name] = _latencies(value) if name == "latencies" else _section(name, value)
        except FieldError as error:
            raise error.within(name) from error
    return Conditions(**given)


def _section(name: str, value: Mapping[str, Any]) -> Faults | Belief | PlacementRule | Shape:
    match name:
        case "faults":
            return decode_fields(Faults, value)
        case "belief":
            return decode_fields(Belief, value)
        case "losses":
            return decode_fields(Shape, value)
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
