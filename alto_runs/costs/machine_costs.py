"""One kind of GPU as executors use it, for tasks of one GPU and of several."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from alto_policy.executors.layout import Layout, PassCosts, choose_layout
from alto_policy.executors.packing import by_batch_size
from alto_policy.memory import MemoryModel, joined, saving_pays
from alto_policy.types import Job, Task, TaskId
from alto_runs.costs.durations import GangTimes, PassTimes
from alto_runs.costs.partly_kept import PartlyKept
from alto_runs.costs.ranks_in_step import RanksInStep
from alto_runs.costs.recording import most_recorded_in_shards, most_recorded_tokens
from alto_runs.costs.sharded import Sharded
from alto_runs.costs.step_profile import UNTOLD_CAPACITY, Basis, StepProfile, weakest
from alto_runs.costs.storage import PLAIN, Storage
from alto_runs.costs.work import PassWork
from alto_runs.errors import UserError

__all__ = ["CHOSEN", "ExecutorChoices", "Machine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorChoices:
    """What a study says of its executors; None where they choose."""

    storage: Storage = PLAIN
    recompute: bool | None = None
    max_jobs: int | None = None
    memory_gb: float | None = None

    def bounded(self, memory: MemoryModel) -> MemoryModel:
        gigabytes = self.memory_gb
        capacity = memory.capacity if gigabytes is None else int(gigabytes * 1e9)
        return replace(memory, capacity=capacity, max_jobs=self.max_jobs)


CHOSEN = ExecutorChoices()


@dataclass(frozen=True, slots=True)
class _Way:
    """To train a task: step times, and the memory of one of its GPUs."""

    times: PassTimes
    memory: MemoryModel
    profile: StepProfile  # of passes of jobs alone
    is_split: bool = False

    def tokens_per_second(self, task: Task) -> float:
        """With as many jobs side by side on each GPU as fit, in the order of packing."""
        jobs: list[Job] = []
        for job in by_batch_size(task.jobs):
            if self.memory.fits([*jobs, job], task.max_length):
                jobs.append(job)
        if not jobs:
            return 0.0
        sequences = sum(job.hyperparameters.batch_size for job in jobs)
        gang = self.times.gang(task)
        if gang is not None:
            return sequences / gang.pass_seconds([jobs] * task.num_gpus, task)
        return sequences / self.times.pass_seconds(jobs, task)


class Machine:
    """Times of passes, and memory. A task's activations are kept or computed again, and its
    backbone is copied to each of its GPUs or split over them, as an executor would choose."""

    def __init__(
        self,
        profile: StepProfile,
        choices: ExecutorChoices = CHOSEN,
        *,
        capacity: int | None = None,
        adapter_parallel: bool = True,
    ) -> None:
        """With a `capacity`, no task has more bytes of a GPU. Without `adapter_parallel`, GPUs that
        share a backbone split the batch of one job at a time."""
        self.profile = profile
        self._choices = choices
        self._capacity = capacity
        self._adapter_parallel = adapter_parallel
        self._plain = profile.kept(choices.storage, recompute=False)
        self._again = profile.kept(choices.storage, recompute=True)
        # Of all tasks: what one has asked for, others of its backbone and width need not work out.
        self._ranks = RanksInStep(
            self._plain, adapter_parallel=adapter_parallel, bounded=self._bounded
        )
        self._ranks_again = replace(self._ranks, profile=self._again)
        self._ranks_partly = replace(self._ranks, again=self._again)
        self._ways: dict[tuple[TaskId, int], _Way] = {}

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        return self._way(task).times.pass_seconds(jobs, task)

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        return self._way(task).times.evaluation_seconds(jobs, task)

    def gang(self, task: Task) -> GangTimes | None:
        return self._way(task).times.gang(task)

    def memory_model(self, task: Task) -> MemoryModel:
        return self._way(task).memory

    def within(self, capacity: int) -> "Machine":
        """The same GPUs with no more memory than so many bytes."""
        return Machine(
            self.profile,
            self._choices,
            capacity=capacity,
            adapter_parallel=self._adapter_parallel,
        )

    def basis(self, tasks: Iterable[Task]) -> Basis:
        """How far the weakest of the answers stands from a measurement, for jobs alone."""
        works: dict[tuple[StepProfile, PassWork], None] = {}
        for task in tasks:
            if self.is_split(task):
                return Basis.ESTIMATED
            profile = self._way(task).profile
            works.update(dict.fromkeys((profile, profile.work((job,), task)) for job in task.jobs))
        return weakest(profile.seconds(work).basis for profile, work in works)

    def is_split(self, task: Task) -> bool:
        """Whether the backbone is split over the task's GPUs, which no profile has measured."""
        return self._way(task).is_split

    def _bounded(self, memory: MemoryModel) -> MemoryModel:
        bounded = self._choices.bounded(memory)
        if bounded.capacity >= UNTOLD_CAPACITY:
            raise UserError(
                "executor.memory_gb: missing, expected in the study: no data sheet tells the "
                f"memory of {self.profile.gpu!r}"
            )
        if self._capacity is None:
            return bounded
        return replace(bounded, capacity=min(bounded.capacity, self._capacity))

    def _way(self, task: Task) -> _Way:
        key = task.id, task.num_gpus
        if key not in self._ways:
            self._ways[key] = self._chosen(task)
        return self._ways[key]

    def _chosen(self, task: Task) -> _Way:
        copies = self._copies(task)
        if task.num_gpus == 1 or self._choices.storage.packed_bytes is not None:
            return copies
        shape, shards = self._plain.shape_of(task), self._shards(task)
        linears = self._ranks.linears(task)
        costs = PassCosts.estimated(
            linears,
            shape.parameters,
            recorded_alone=most_recorded_tokens(shape.groups),
            recorded_together=most_recorded_in_shards(linears),
            recomputes=self._choices.recompute is True,
        )
        layout = choose_layout(task, copies.memory, shards.memory, costs)
        return copies if layout is Layout.COPIES else shards

    def _copies(self, task: Task) -> _Way:
        plain, again = (
            _Way(profile, self._bounded(profile.memory_model(task)), profile)
            for profile in (self._plain, self._again)
        )
        partly = partial(PartlyKept, self._plain, self._again)
        return _kept(task, plain, again, partly, self._choices.recompute)

    def _shards(self, task: Task) -> _Way:
        plain, again = (
            _Way(Sharded(profile, ranks), ranks.memory_model(task), profile, is_split=True)
            for profile, ranks in (
                (self._plain, self._ranks),
                (self._again, self._ranks_again),
            )
        )
        partly = Sharded(self._plain, self._ranks_partly)
        return _kept(task, plain, again, lambda _: partly, self._choices.recompute)


def _kept(
    task: Task,
    plain: _Way,
    again: _Way,
    partly: Callable[[MemoryModel], PassTimes],
    recompute: bool | None,
) -> _Way:
    """As an executor chooses that measures passes of both kinds, unless it is told."""
    if recompute is not None:
        return again if recompute else plain

    def tokens_per_second(model: MemoryModel) -> float:
        return (plain if model is plain.memory else again).tokens_per_second(task)

    if not saving_pays(plain.memory, again.memory, task, tokens_per_second):
        return plain
    memory = joined(plain.memory, again.memory)
    return replace(plain, times=partly(memory), memory=memory)
