"""Several kinds of GPU in one cluster: what a gang of some of them does, and who fits where."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Protocol

from alto_policy.executors.packing import by_batch_size
from alto_policy.memory import MemoryModel
from alto_policy.types import GpuId, Task
from alto_policy.view import ClusterView
from alto_runs.costs.durations import PassTimes, TaskDurations

__all__ = ["KindCosts", "KindDurations", "Mixture"]

_TOLD = ".3g"  # digits of a speed, so that tasks of one shape are alike


class KindCosts(PassTimes, Protocol):
    """Of one kind of GPU: a `Machine`."""

    def memory_model(self, task: Task) -> MemoryModel: ...
    def within(self, capacity: int) -> "KindCosts":
        """The same GPUs with no more memory than so many bytes."""


class Mixture:
    """The costs of each kind by its name."""

    def __init__(self, costs: Mapping[str, KindCosts]) -> None:
        self.costs = costs
        self._mixed: dict[tuple[str, int], KindCosts] = {}

    def of_gang(self, kinds: Collection[str], task: Task) -> KindCosts:
        """GPUs of these kinds together: as slow as the slowest, as large as the smallest."""
        slowest = self.ranked(kinds, task)[-1]
        own = self.costs[slowest]
        if len(kinds) == 1:
            return own
        capacity = min(self.costs[kind].memory_model(task).capacity for kind in kinds)
        key = slowest, capacity
        if key not in self._mixed:
            self._mixed[key] = own.within(capacity)
        return self._mixed[key]

    def ranked(self, kinds: Collection[str], task: Task) -> tuple[str, ...]:
        """The one first that is done soonest with a pass of the task's largest job alone."""
        if len(kinds) == 1:
            return tuple(kinds)
        largest = by_batch_size(task.jobs)[:1]
        return tuple(sorted(kinds, key=lambda kind: self.costs[kind].pass_seconds(largest, task)))

    def holding(self, task: Task, counts: Mapping[str, int]) -> tuple[str, ...]:
        """The kinds that hold as many of its jobs as any kinds with enough GPUs do, the fastest
        first; none if all that have enough are too small for every job."""
        held: dict[str, int] = {}
        for kind, costs in self.costs.items():
            held[kind] = costs.memory_model(task).num_fitting(task.jobs, task.max_length)
        for least in sorted(set(held.values()) - {0}, reverse=True):
            kinds = [kind for kind, count in held.items() if count >= least]
            if sum(counts[kind] for kind in kinds) >= task.num_gpus:
                return self.ranked(kinds, task)
        return ()


class KindDurations:
    """Of tasks on the kinds of their own GPUs; one that has none is taken for the best of those
    that hold it. To be called as `TaskDurations` is."""

    def __init__(self, mixture: Mixture, durations: Callable[[KindCosts], TaskDurations]) -> None:
        self._mixture = mixture
        self._of = {kind: durations(costs) for kind, costs in mixture.costs.items()}
        self._cluster: ClusterView | None = None
        self._kind_of: dict[GpuId, str] = {}  # of that cluster's

    def seconds(self, task: Task) -> float:
        return self._of[self._best(task)].seconds(task)

    def weighed(self, task: Task) -> Task:
        """The task, told how fast each of its kinds trains all of it; the fastest comes first."""
        kinds = task.kinds or ()
        seconds = {kind: self._of[kind].seconds(task) for kind in kinds}
        ranked = sorted(kinds, key=seconds.__getitem__)
        speeds = tuple(float(f"{seconds[ranked[0]] / seconds[kind]:{_TOLD}}") for kind in ranked)
        return replace(task, kinds=tuple(ranked), speeds=speeds)

    def __call__(self, task: Task, cluster: ClusterView) -> float:
        executor, kind = cluster.executor(task.id), self._best(task)
        if executor is not None:
            if cluster is not self._cluster:  # another run of the same tasks
                self._cluster, self._kind_of = cluster, {gpu.id: gpu.kind for gpu in cluster.gpus}
            gang = dict.fromkeys([self._kind_of[gpu] for gpu in executor.gpus])
            if task.speeds:  # as the placement has it; the rest need not be worked out on each kind
                speeds = dict(zip(task.kinds or (), task.speeds, strict=True))
                return self._of[kind](task, cluster) / min([speeds[each] for each in gang])
            kind = self._mixture.ranked(gang, task)[-1]
        return self._of[kind](task, cluster)

    def _best(self, task: Task) -> str:
        return task.kinds[0] if task.kinds else next(iter(self._of))
