"""Hyperband over the jobs of a task (Li et al. 2018, algorithm 1), synchronous in each bracket."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.rungs import has_reached, waits_at, worst
from alto_policy.types import JobId, Task, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["Hyperband", "HyperbandSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperbandSettings:
    grace: float = 0.05  # of a job's own samples: no first rung is below it
    eta: float = 3.0  # from rung to rung; 1 / eta of the jobs pass

    def __post_init__(self) -> None:
        if not 0 < self.grace < 1:
            raise ValueError(f"grace must be in (0, 1), got {self.grace}")
        if not 1 < self.eta < math.inf:
            raise ValueError(f"eta must be above 1, got {self.eta}")


@dataclass(slots=True)
class _Bracket:
    jobs: list[JobId]  # in the order of the task
    rungs: tuple[float, ...]  # still to come


class Hyperband(Dispatch):
    """Successive halving in several brackets, the jobs of each pausing together at its rungs.

    The brackets share the jobs of a task in turn, in proportion to the paper's sizes: its random
    draw would not be repeatable, and a grid in blocks would give each bracket one learning rate.
    """

    def __init__(self, settings: HyperbandSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._brackets: dict[TaskId, list[_Bracket]] = {}
        self._bracket_of: dict[JobId, _Bracket] = {}

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        rungs = self._bracket(job, cluster).rungs
        if rungs and has_reached(cluster.history(job), cluster.spec(job), rungs[0]):
            yield Pause(job)

    def cut(self, task: Task, cluster: ClusterView, gone: Collection[JobId]) -> Iterable[Stop]:
        self._bracket(task.jobs[0].id, cluster)
        for bracket in self._brackets[task.id]:
            for loser in self._halve(bracket, cluster, gone):
                yield Stop(loser, ExitReason.UNDERPERFORMED)

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        yield [job for job in cluster.jobs(task.id, Status.PAUSED) if not self._waits(job, cluster)]
        yield cluster.jobs(task.id, Status.QUEUED)

    def _halve(
        self, bracket: _Bracket, cluster: ClusterView, gone: Collection[JobId]
    ) -> Iterator[JobId]:
        """Losers of each rung to which all jobs of the bracket have come.

        Sparse reports may take a job past two rungs at once.
        """
        bracket.jobs = [
            job
            for job in bracket.jobs
            if job not in gone and cluster.status(job) is not Status.ENDED
        ]
        while bracket.rungs and bracket.jobs:
            rung = bracket.rungs[0]
            if not all(waits_at(job, rung, cluster) for job in bracket.jobs):
                return
            kept = max(1, int(len(bracket.jobs) / self._settings.eta))
            losers = worst(bracket.jobs, rung, kept, cluster)
            yield from losers
            bracket.jobs = [job for job in bracket.jobs if job not in losers]
            bracket.rungs = bracket.rungs[1:]

    def _waits(self, job: JobId, cluster: ClusterView) -> bool:
        rungs = self._bracket(job, cluster).rungs
        return bool(rungs) and waits_at(job, rungs[0], cluster)

    def _bracket(self, job: JobId, cluster: ClusterView) -> _Bracket:
        if job not in self._bracket_of:
            task = cluster.task_of(job)
            self._brackets[task.id] = _brackets(task, self._settings)
            for bracket in self._brackets[task.id]:
                self._bracket_of.update(dict.fromkeys(bracket.jobs, bracket))
        return self._bracket_of[job]


def _brackets(task: Task, settings: HyperbandSettings) -> list[_Bracket]:
    """Bracket s begins at eta^-s of a job and weighs ceil((s_max + 1) / (s + 1) * eta^s)."""
    eta = settings.eta
    s_max = math.floor(math.log(1 / settings.grace, eta) + 1e-9)
    brackets, weights = [], []
    for s in range(s_max, -1, -1):
        brackets.append(_Bracket([], tuple(eta**-k for k in range(s, 0, -1))))
        weights.append(math.ceil((s_max + 1) / (s + 1) * eta**s))
    claims = [0] * len(brackets)
    for job in task.jobs:
        claims = [claim + weight for claim, weight in zip(claims, weights, strict=True)]
        strongest = claims.index(max(claims))
        claims[strongest] -= sum(weights)
        brackets[strongest].jobs.append(job.id)
    return brackets
