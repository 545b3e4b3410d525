"""Kinds of GPU whose times and memory can be worked out by hand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alto_policy.memory import MemoryModel
from alto_policy.types import Gpu, GpuId, Job, Task
from alto_runs.costs.kinds import Mixture
from alto_sim.times.step_time import StepTime

__all__ = ["BYTES", "COUNTS", "KIND_OF", "MIXED", "SPEEDS", "Costs", "mixture"]

# Bytes of a GPU and its speed; a job takes as many bytes as its batch size.
BYTES = {"tiny": 2, "large": 9, "small": 5}
SPEEDS = {"tiny": 0.25, "large": 1.0, "small": 0.5}
_NODES = ("tiny", "large", "small")  # three GPUs each
MIXED = tuple(
    Gpu(id=GpuId(number), kind=_NODES[number // 3], node=f"node{number // 3}")
    for number in range(9)
)
KIND_OF: Mapping[int, str] = {gpu.id: gpu.kind for gpu in MIXED}
COUNTS = dict.fromkeys(_NODES, 3)


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one kind."""

    times: StepTime
    memory: MemoryModel

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        return self.times.pass_seconds(jobs, task)

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        return self.times.evaluation_seconds(jobs, task)

    def gang(self, task: Task) -> None:
        """Each GPU trains for itself."""

    def memory_model(self, task: Task) -> MemoryModel:
        return self.memory

    def within(self, capacity: int) -> "Costs":
        return replace(self, memory=replace(self.memory, capacity=capacity))


def mixture(factor: float = 1.0) -> Mixture:
    """With all times multiplied."""
    return Mixture(
        {
            kind: Costs(
                StepTime(
                    per_pass=1.0 / speed * factor,
                    per_token=0.125 / speed * factor,
                    per_evaluation=0.5 / speed * factor,
                ),
                MemoryModel(capacity=BYTES[kind], fixed=0, per_rank=0, per_token=1),
            )
            for kind, speed in SPEEDS.items()
        }
    )
