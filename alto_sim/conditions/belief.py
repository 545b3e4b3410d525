"""What a policy takes tasks to last, and to hold of memory; the truth is the workload's own."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alto_policy.memory import MemoryModel
from alto_policy.types import Task
from alto_runs.costs.durations import ExpectedExits, PassTimes, TaskDurations
from alto_runs.costs.kinds import KindDurations, Mixture
from alto_runs.costs.machine_costs import Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.errors import UserError
from alto_runs.profile import read_profile
from alto_sim.workloads.workload import Workload, weighed

__all__ = ["Belief", "BelievedCosts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """How the policy comes to the durations of tasks."""

    profile: str | None = None  # file of the step times that it believes, in place of the true ones
    error: float = 0.0  # sigma of a log-normal factor of median 1 on each task's duration
    seed: int = 0  # of the factors
    exits: ExpectedExits | None = None  # that it reckons with, else every job is trained to its end

    def __post_init__(self) -> None:
        if not 0 <= self.error < math.inf:
            raise ValueError(f"error must be at least 0, got {self.error}")


class BelievedCosts:
    """The workload's own step times and memory, or those of the profile that is believed; it is
    seen from `folder`. Raises UserError."""

    def __init__(self, belief: Belief, workload: Workload, folder: Path) -> None:
        self._belief = belief
        self._workload = workload
        self._machine: Machine | None = None
        self._mixture = workload.mixture
        self._factors: dict[str, float] = {}
        if belief.exits is not None and workload.durations:
            raise UserError("belief.exits: jobs of this trace are trained to their ends")
        if belief.profile is not None:
            if workload.durations:
                raise UserError("belief.profile: jobs of this trace have durations of their own")
            rows = read_profile(folder / belief.profile)
            if self._mixture is None:
                machines = [Machine(StepProfile(rows))]
                self._machine = machines[0]
            else:
                kinds = self._mixture.costs
                costs = {kind: Machine(StepProfile(rows, gpu=kind)) for kind in kinds}
                self._mixture, machines = Mixture(costs), list(costs.values())
            for arrival in workload.arrivals:
                machines[0].memory_model(arrival.task)  # an unknown shape is said now

    def told(self, workload: Workload) -> Workload:
        """With tasks that tell the speeds which are believed, where they are not the true ones."""
        durations = self.durations()
        if self._belief.profile is None or not isinstance(durations, KindDurations):
            return workload
        return weighed(workload, durations)

    def memory(self, task: Task) -> MemoryModel:
        """On the one kind that there is."""
        machine, workload = self._machine, self._workload
        return workload.memory_of(task) if machine is None else machine.memory_model(task)

    def durations(self) -> TaskDurations | KindDurations:
        """Without the errors."""
        if self._mixture is not None:
            return KindDurations(self._mixture, lambda kind: self._of(kind, kind.memory_model))
        return self._of(self._machine or self._workload.step_time, self.memory)

    def _of(self, times: PassTimes, memory: Callable[[Task], MemoryModel]) -> TaskDurations:
        latencies = self._workload.latencies
        return TaskDurations(
            times,
            memory,
            start_seconds=latencies.start + latencies.load,
            exits=self._belief.exits,
        )

    def error(self, task: Task) -> float:
        """One factor for each task, whatever the order in which they are asked for."""
        if self._belief.error == 0:
            return 1.0
        if task.id not in self._factors:
            dice = random.Random(f"{self._belief.seed}/belief/{task.id}")
            self._factors[task.id] = dice.lognormvariate(0.0, self._belief.error)
        return self._factors[task.id]
