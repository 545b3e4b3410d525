"""Step times and memory of tasks of one GPU, and of those whose backbone is split over several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alto_policy.memory import MemoryModel
from alto_policy.types import Job, Task
from alto_runs.costs.ranks_in_step import RanksInStep
from alto_runs.costs.step_profile import StepProfile

__all__ = ["Sharded"]


@dataclass(frozen=True, slots=True)
class Sharded:
    """`PassTimes` of a simulation; what concerns several GPUs is modelled (`ranks_in_step`)."""

    single: StepProfile
    wide: RanksInStep

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        """With several GPUs, of jobs on one of them while the others have none."""
        if task.num_gpus == 1:
            return self.single.pass_seconds(jobs, task)
        return self.wide.pass_seconds((tuple(jobs),), task)

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        if task.num_gpus == 1:
            return self.single.evaluation_seconds(jobs, task)
        return self.wide.evaluation_seconds((jobs,), task)

    def gang(self, task: Task) -> RanksInStep | None:
        return None if task.num_gpus == 1 else self.wide

    def memory_model(self, task: Task, max_jobs: int | None = None) -> MemoryModel:
        if task.num_gpus == 1:
            return self.single.memory_model(task, max_jobs)
        return self.wide.memory_model(task, max_jobs)
