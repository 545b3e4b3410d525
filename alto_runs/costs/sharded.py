"""Step times and memory of a backbone that is split over several GPUs; estimates, not measured.

Every rank holds a share of the frozen weights and gathers each layer when it needs it, forward and
backward (FSDP). With adapter parallelism a rank trains jobs of its own; without, all ranks train
one job together and split its batch. A step is as long as the longer of arithmetic and gathering:
the two overlap.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from alto_policy.memory import MemoryModel
from alto_policy.types import Hyperparameters, Job, Task
from alto_runs.costs.step_profile import StepProfile

__all__ = ["GATHER_BYTES_PER_SECOND", "WEIGHT_BYTES", "Sharded"]

# NVLink of an H100 SXM: 450 GB/s in one direction (data sheet), of which all-gathers of large
# layers reach about four fifths: an assumption.
GATHER_BYTES_PER_SECOND = 360e9
WEIGHT_BYTES = 2
_GATHERS = 2  # in the forward and in the backward pass; a frozen backbone reduces no gradients


@dataclass(frozen=True, slots=True)
class Sharded:
    """The profile of one GPU for tasks of one and of several; `PassTimes` of a simulation.

    Wide tasks recompute their activations. `adapter_parallel` is off for the baseline, whose ranks
    take turns at one job: the simulator gives each rank a job, at the pace of its turns.
    """

    single: StepProfile
    wide: StepProfile  # the same rows, with activations computed again
    adapter_parallel: bool = True

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        if task.num_gpus == 1:
            return self.single.pass_seconds(jobs, task)
        if self.adapter_parallel:
            return max(self.wide.pass_seconds(jobs, task), self.gather_seconds(task))
        shares = [_share_of(job, task.num_gpus) for job in jobs]
        together = max(self.wide.pass_seconds(shares, task), self.gather_seconds(task))
        return together * task.num_gpus

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        if task.num_gpus == 1:
            return self.single.evaluation_seconds(jobs, task)
        return max(
            self.wide.evaluation_seconds(jobs, task),
            self.gather_seconds(task) / _GATHERS * (1 if jobs else 0),
        )

    def gather_seconds(self, task: Task) -> float:
        """All weights that other ranks hold, once in each direction."""
        shape = self.wide.shape_of(task)
        others = WEIGHT_BYTES * shape.parameters * (task.num_gpus - 1) / task.num_gpus
        return _GATHERS * others / GATHER_BYTES_PER_SECOND

    def memory_model(self, task: Task, max_jobs: int | None = None) -> MemoryModel:
        """On one rank: its share of the weights and two whole layers."""
        if task.num_gpus == 1:
            return self.single.memory_model(task, max_jobs)
        whole, shape = self.wide.memory_model(task, max_jobs), self.wide.shape_of(task)
        weights = WEIGHT_BYTES * shape.parameters
        layer = WEIGHT_BYTES * shape.block_parameters / shape.layers
        fixed = whole.fixed - weights + weights / task.num_gpus + 2 * layer
        return replace(whole, fixed=math.ceil(fixed))


def _share_of(job: Job, ranks: int) -> Job:
    """What one rank trains of a job; a batch smaller than the ranks leaves some with padding."""
    chosen: Hyperparameters = job.hyperparameters
    return replace(
        job, hyperparameters=replace(chosen, batch_size=math.ceil(chosen.batch_size / ranks))
    )
