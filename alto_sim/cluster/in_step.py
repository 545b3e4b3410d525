"""GPUs of an executor that share one backbone: their jobs train as in one lane."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alto_policy.types import GpuId, Job, JobId, Task
from alto_runs.costs.durations import GangTimes

__all__ = ["InStep"]


@dataclass(frozen=True, slots=True)
class InStep:
    """`PassTimes` of the jobs of all GPUs together."""

    times: GangTimes
    gpu_of: Mapping[JobId, GpuId]  # where each job was launched

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        return self.times.pass_seconds(self._by_gpu(jobs), task)

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        return self.times.evaluation_seconds(self._by_gpu(jobs), task)

    def gang(self, task: Task) -> GangTimes:
        return self.times

    def _by_gpu(self, jobs: Iterable[Job]) -> Sequence[Sequence[Job]]:
        """Of the GPUs that have any."""
        found: dict[GpuId, list[Job]] = {}
        for job in jobs:
            found.setdefault(self.gpu_of[job.id], []).append(job)
        return tuple(found.values())
