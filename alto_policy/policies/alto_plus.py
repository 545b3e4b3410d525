"""Rounds of selection from early on, in which large batches have a handicap (ours)."""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import partial

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.exits import ExitRules, ExitWatch
from alto_policy.rungs import has_reached, loss_at, waits_at
from alto_policy.types import JobId, Task, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["AltoPlus", "AltoPlusSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AltoPlusSettings:
    """Chosen on some grids and judged on others: experiments/README.md."""

    rounds: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)  # shares of a job's own steps
    keep: float = 0.5  # of a task's jobs that live to a round
    min_kept: int = 1
    handicap: float = 0.02  # of large batches: times the logarithms of samples a step and 1 / share
    # Rounds end whoever falls behind, while the paper's gap ends leaders that still improve.
    rules: ExitRules = field(default_factory=partial(ExitRules, gap=None))

    def __post_init__(self) -> None:
        is_inside = all(0 < share < 1 for share in self.rounds)
        if not (self.rounds and is_inside and list(self.rounds) == sorted(set(self.rounds))):
            raise ValueError(f"rounds must be in (0, 1), at least one, and rise, got {self.rounds}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")
        if self.min_kept < 1:
            raise ValueError(f"min_kept must be at least 1, got {self.min_kept}")
        if not 0 <= self.handicap < math.inf:
            raise ValueError(f"handicap must be at least 0, got {self.handicap}")


class AltoPlus(Dispatch):
    """As `Alto`, but the jobs of a task pause together at each round, and fewer go on each time."""

    def __init__(self, settings: AltoPlusSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._exits = ExitWatch(settings.rules)
        self._held: dict[TaskId, int] = {}  # rounds that are over

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        history = cluster.history(job)
        share = self._next_round(cluster.task_of(job).id)
        if reason := self._exits.reason(job, history):
            yield Stop(job, reason)
        elif share is not None and has_reached(history, cluster.spec(job), share):
            yield Pause(job)

    def cut(self, task: Task, cluster: ClusterView, gone: Collection[JobId]) -> Iterable[Stop]:
        """The losers of each round to which all jobs of the task have come.

        Sparse reports may take the jobs past two rounds at once.
        """
        stopped = set(gone)
        while (share := self._next_round(task.id)) is not None:
            num_ended = len(cluster.jobs(task.id, Status.ENDED)) + len(stopped)
            here = [job.id for job in task.jobs if waits_at(job.id, share, cluster)]
            waiting = [job for job in here if job not in stopped]
            if len(waiting) + num_ended < len(task.jobs):
                return
            self._held[task.id] = self._held.get(task.id, 0) + 1
            num_kept = math.ceil(round(self._settings.keep * len(waiting), 9))
            waiting.sort(key=lambda job: self._compared(job, share, cluster))
            for loser in waiting[max(self._settings.min_kept, num_kept) :]:
                stopped.add(loser)
                yield Stop(loser, ExitReason.UNDERPERFORMED)

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        """Those that do not wait for the others at the next round."""
        share = self._next_round(task.id)
        paused = cluster.jobs(task.id, Status.PAUSED)
        yield [job for job in paused if share is None or not waits_at(job, share, cluster)]
        yield cluster.jobs(task.id, Status.QUEUED)

    def _compared(self, job: JobId, share: float, cluster: ClusterView) -> float:
        """Loss at the round, less what a large batch lacks for making few updates of its samples.

        A loss falls by about a power of the updates; what one lacks shrinks to nothing at the end.
        """
        spec = cluster.spec(job)
        size = spec.hyperparameters.samples_per_step
        lack = self._settings.handicap * math.log(size) * math.log(1 / share)
        return loss_at(cluster.history(job), spec, share) * math.exp(-lack)

    def _next_round(self, task: TaskId) -> float | None:
        held = self._held.get(task, 0)
        return self._settings.rounds[held] if held < len(self._settings.rounds) else None
