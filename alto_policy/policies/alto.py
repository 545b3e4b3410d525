"""Warm every job up, keep the best of each task, stop what diverges or overfits (paper)."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.exits import ExitRules, ExitWatch
from alto_policy.rungs import has_reached, waits_at, worst
from alto_policy.types import JobId, Task, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["Alto", "AltoSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AltoSettings:
    warmup: float = 0.05  # of a job's own steps
    keep: float = 0.25  # of a task's jobs that live to the end of the warm-up
    min_kept: int = 1
    rules: ExitRules = field(default_factory=ExitRules)
    move_tokens: int | None = None  # that a GPU trains while a job moves; None: none moves

    def __post_init__(self) -> None:
        if not 0 < self.warmup < 1:
            raise ValueError(f"warmup must be in (0, 1), got {self.warmup}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")
        if self.min_kept < 1:
            raise ValueError(f"min_kept must be at least 1, got {self.min_kept}")
        if self.move_tokens is not None and self.move_tokens < 0:
            raise ValueError(f"move_tokens must not be negative, got {self.move_tokens}")


class Alto(Dispatch):
    """A job is stopped by its own history, or by its rank among all jobs at equal data."""

    def __init__(self, settings: AltoSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._exits = ExitWatch(settings.rules)
        self.move_tokens = settings.move_tokens
        self._selected: set[TaskId] = set()  # tasks that are past their warm-up
        self._known: dict[TaskId, set[JobId]] = {}  # warm jobs, until the selection of their task

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        history = cluster.history(job)
        if reason := self._exits.reason(job, history):
            yield Stop(job, reason)
        elif cluster.task_of(job).id not in self._selected and has_reached(
            history, cluster.spec(job), self._settings.warmup
        ):
            yield Pause(job)

    def cut(self, task: Task, cluster: ClusterView, gone: Collection[JobId]) -> Iterable[Stop]:
        """The outranked, once, when all jobs of the task are warm or have ended."""
        if task.id in self._selected:
            return ()
        ended = len(cluster.jobs(task.id, Status.ENDED)) + len(gone)
        if len(cluster.jobs(task.id, Status.PAUSED)) + ended < len(task.jobs):
            return ()  # the common case, told without a look at the jobs
        warm = [job for job in self._warm(task, cluster) if job not in gone]
        if len(warm) + ended < len(task.jobs):
            return ()
        self._selected.add(task.id)
        self._known.pop(task.id, None)
        kept = max(self._settings.min_kept, _ceil(self._settings.keep * len(warm)))
        losers = worst(warm, self._settings.warmup, kept, cluster)
        return [Stop(job, ExitReason.UNDERPERFORMED) for job in losers]

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        """The selected; before the selection those that are not warm yet."""
        paused = cluster.jobs(task.id, Status.PAUSED)
        if task.id not in self._selected:
            paused = self._cold(paused, task, cluster)
        yield paused
        yield cluster.jobs(task.id, Status.QUEUED)

    def _cold(
        self, paused: Collection[JobId], task: Task, cluster: ClusterView
    ) -> Collection[JobId]:
        """A warm one stays so until the selection, and is looked at once."""
        warm = self._known.setdefault(task.id, set())
        asked = [job for job in paused if job not in warm]
        cold = [job for job in asked if not waits_at(job, self._settings.warmup, cluster)]
        if len(cold) < len(asked):
            warm.update(set(asked).difference(cold))
        return cold

    def _warm(self, task: Task, cluster: ClusterView) -> Sequence[JobId]:
        """Jobs that wait for the selection, in the order of the task: it settles ties."""
        jobs = (job.id for job in task.jobs)
        return [job for job in jobs if waits_at(job, self._settings.warmup, cluster)]


def _ceil(share: float) -> int:
    """Ceiling that takes a product such as 0.07 * 100 = 7.000000000000001 for the 7 it means."""
    return math.ceil(round(share, 9))
