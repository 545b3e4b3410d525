"""How long a task will take: its jobs packed into fused passes until the last one ends."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import islice
from typing import Protocol

from alto_policy.events import LossReported
from alto_policy.executors.packing import by_batch_size
from alto_policy.memory import Load, MemoryModel, load_of
from alto_policy.types import Job, JobId, Task, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["ExpectedExits", "GangTimes", "PassTimes", "TaskDurations"]


_Members = list[tuple[Job, int]]  # of a GPU, with the passes that each has before it


class PassTimes(Protocol):
    """A linear form fitted to one study, or the `StepProfile` of a machine."""

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float: ...
    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float: ...
    def gang(self, task: Task) -> "GangTimes | None":
        """Where the task's GPUs go in step; None where each trains for itself."""


class GangTimes(Protocol):
    """Of GPUs that share one backbone: a pass or an evaluation begins and ends on all at once."""

    def pass_seconds(self, by_gpu: Sequence[Sequence[Job]], task: Task) -> float: ...
    def evaluation_seconds(self, by_gpu: Sequence[Sequence[Job]], task: Task) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedExits:
    """What early exits will leave to be trained; the paper plans as if there were none."""

    warmup: float = 0.05  # of each job's steps, trained by all
    keep: float = 0.25  # of the jobs, trained to their end

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")


class _Work:
    """How much of a task is done: asked on many events, of which few concern one job."""

    def __init__(self, of: Mapping[JobId, float]) -> None:
        self.of = of  # each job, what it is expected to train before it has begun
        self.whole = math.fsum(of.values())
        self.told: dict[JobId, tuple[LossReported, float]] = {}  # done by the last report
        self._num_ended, self._of_ended = 0, 0.0

    def ended(self, jobs: Collection[JobId]) -> float:
        """Of those that have ended, in the order of their ends."""
        if len(jobs) > self._num_ended:
            for job in islice(jobs, self._num_ended, None):
                self._of_ended += self.of[job]
                self.told.pop(job, None)
            self._num_ended = len(jobs)
        return self._of_ended


class TaskDurations:
    """A policy's belief, from measured step times and memory; it never sees the losses.

    Called with a task and the cluster it tells the seconds that are left; see `Planner`.
    """

    def __init__(
        self,
        times: PassTimes,
        memory: Callable[[Task], MemoryModel],
        *,
        start_seconds: float = 0.0,
        exits: ExpectedExits | None = None,
    ) -> None:
        self._times = times
        self._memory = memory
        self._start_seconds = start_seconds
        self._exits = exits or ExpectedExits(warmup=0.0, keep=1.0)
        self._known: dict[TaskId, float] = {}
        self._cluster: ClusterView | None = None
        self._works: dict[TaskId, _Work] = {}  # of that cluster's tasks

    def seconds(self, task: Task) -> float:
        """From the start of its executor to the end of its last job, on its own GPUs."""
        if task.id not in self._known:
            self._known[task.id] = self._start_seconds + self._training(task)
        return self._known[task.id]

    def __call__(self, task: Task, cluster: ClusterView) -> float:
        """The share of the work that is left tells the time that is left."""
        share = self._share_left(task, cluster)
        if cluster.executor(task.id) is None:  # it starts, or starts again
            return self._start_seconds + (self.seconds(task) - self._start_seconds) * share
        return self.seconds(task) * share

    def _share_left(self, task: Task, cluster: ClusterView) -> float:
        if len(cluster.jobs(task.id, Status.QUEUED)) == len(task.jobs):
            return 1.0  # as of most tasks that wait
        if cluster is not self._cluster:  # another run of the same tasks
            self._cluster, self._works = cluster, {}
        work = self._works.get(task.id)
        if work is None:
            work = self._works[task.id] = _Work(
                {job.id: _weight(job) * self._expected(job, 0) for job in task.jobs}
            )
        done = work.ended(cluster.jobs(task.id, Status.ENDED))
        for status in (Status.RUNNING, Status.PAUSED, Status.PAUSING, Status.STOPPING):
            for job in cluster.jobs(task.id, status):
                if history := cluster.history(job):
                    report = history[-1]
                    told = work.told.get(job)
                    if told is None or told[0] is not report:
                        spec = cluster.spec(job)
                        left = _weight(spec) * self._expected(spec, report.step)
                        told = work.told[job] = report, work.of[job] - left
                    done += told[1]
        return max(0.0, 1 - done / work.whole)

    def _expected(self, job: Job, step: int) -> float:
        """Share of the job's steps still to come; one that is past the warm-up was kept."""
        done, exits = step / job.steps, self._exits
        if done > exits.warmup:  # else it cannot be past the report at which warm jobs are ranked
            boundary = job.next_report_step(math.ceil(exits.warmup * job.steps) - 1) / job.steps
            if done > boundary:
                return 1 - done
        return max(0.0, exits.warmup - done) + exits.keep * (1 - max(exits.warmup, done))

    def _training(self, task: Task) -> float:
        exits = self._exits
        jobs = by_batch_size(task.jobs)
        num_kept = math.ceil(round(exits.keep * len(jobs), 9))
        kept = [jobs[i * len(jobs) // num_kept] for i in range(num_kept)]  # of all batch sizes
        warm = {job.id: math.ceil(exits.warmup * job.steps) for job in jobs}
        total = 0.0
        if exits.warmup > 0:
            total += self._packed([(job, warm[job.id]) for job in jobs], task)
        return total + self._packed([(job, job.steps - warm[job.id]) for job in kept], task)

    def _packed(self, jobs: Sequence[tuple[Job, int]], task: Task) -> float:
        """Each GPU trains what fits, until its first job ends; then it takes the next ones."""
        memory = self._memory(task)
        queue = [(job, _passes(job, steps)) for job, steps in reversed(jobs) if steps > 0]
        members: list[_Members] = [[] for _ in range(task.num_gpus)]
        loads, emptiest = [Load() for _ in members], 0
        while queue:
            together = _joined(loads[emptiest], queue[-1][0], memory, task)
            if together is None:
                break
            members[emptiest].append(queue.pop())
            loads[emptiest] = together
            emptiest = min(range(len(loads)), key=lambda number: loads[number].tokens)
        gang = self._times.gang(task)
        seconds = (
            self._apart(members, queue, memory, task)
            if gang is None
            else _in_step(gang, members, queue, memory, task)
        )
        return seconds + self._evaluations(jobs, task)

    def _apart(
        self, members: list[_Members], queue: _Members, memory: MemoryModel, task: Task
    ) -> float:
        lanes, end = [(0.0, number) for number in range(len(members))], 0.0
        while lanes:
            now, number = heappop(lanes)
            here = members[number]
            if queue:
                _fill(here, queue, memory, task)
            if not here:
                end = max(end, now)
                continue
            passes = min(left for _, left in here)
            now += passes * self._times.pass_seconds([job for job, _ in here], task)
            members[number] = _after(here, passes)
            heappush(lanes, (now, number))
        return end

    def _evaluations(self, jobs: Sequence[tuple[Job, int]], task: Task) -> float:
        """Each GPU evaluates its own jobs, all beside one another."""
        gang = self._times.gang(task)
        beside = min(task.num_gpus, max(1, len(jobs)))

        def seconds(job: Job) -> float:
            if gang is None:
                return self._times.evaluation_seconds([job], task)
            return gang.evaluation_seconds([[job]] * beside, task)

        shares = (steps * job.reports / job.steps for job, steps in jobs)
        return (
            math.fsum(s * seconds(job) for s, (job, _) in zip(shares, jobs, strict=True)) / beside
        )


def _weight(job: Job) -> int:
    """Sequences that the whole job trains on."""
    return job.samples(job.steps)


def _passes(job: Job, steps: int) -> int:
    return steps * job.hyperparameters.accumulation


def _in_step(
    gang: GangTimes, members: list[_Members], queue: _Members, memory: MemoryModel, task: Task
) -> float:
    now = 0.0
    while True:
        for here in members:
            if queue:
                _fill(here, queue, memory, task)
        if not any(members):
            return now
        passes = min(left for here in members for _, left in here)
        now += passes * gang.pass_seconds([[job for job, _ in here] for here in members], task)
        members = [_after(here, passes) for here in members]


def _after(here: _Members, passes: int) -> _Members:
    return [(job, left - passes) for job, left in here if left > passes]


def _fill(here: _Members, queue: _Members, memory: MemoryModel, task: Task) -> None:
    """Let as many as fit join, the last of the queue first."""
    load = load_of((job for job, _ in here), task.max_length)
    while queue and (together := _joined(load, queue[-1][0], memory, task)) is not None:
        here.append(queue.pop())
        load = together


def _joined(load: Load, job: Job, memory: MemoryModel, task: Task) -> Load | None:
    """What they are together, or None without room for the job.

    A job that fits nowhere is given an empty GPU: its executor will tell otherwise.
    """
    together = load.plus(job, task.max_length)
    if load.jobs > 0:
        if memory.max_jobs is not None and together.jobs > memory.max_jobs:
            return None
        if memory.held(together) > memory.capacity:
            return None
    return together
