"""What a policy takes tasks to last, and to hold of memory; the truth is the workload's own."""

import math
import random
from dataclasses import dataclass
from pathlib import Path

from alto_policy.memory import MemoryModel
from alto_policy.types import Task
from alto_runs.costs.durations import ExpectedExits, TaskDurations
from alto_runs.costs.machine_costs import Machine
from alto_runs.costs.step_profile import StepProfile
from alto_runs.errors import UserError
from alto_runs.profile import read_profile
from alto_sim.workload import Workload

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
        self._factors: dict[str, float] = {}
        if belief.exits is not None and workload.durations:
            raise UserError("belief.exits: jobs of this trace are trained to their ends")
        if belief.profile is not None:
            if workload.durations:
                raise UserError("belief.profile: jobs of this trace have durations of their own")
            self._machine = Machine(StepProfile(read_profile(folder / belief.profile)))
            for arrival in workload.arrivals:
                self._machine.memory_model(arrival.task)  # an unknown shape is said now

    def memory(self, task: Task) -> MemoryModel:
        machine, workload = self._machine, self._workload
        return workload.memory_of(task) if machine is None else machine.memory_model(task)

    def durations(self) -> TaskDurations:
        """Without the errors."""
        latencies = self._workload.latencies
        return TaskDurations(
            self._machine or self._workload.step_time,
            self.memory,
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
