"""Several rounds of selection, by where a job's loss is going (ours, after the paper's one)."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.events import LossReported
from alto_policy.exits import ExitRules, exit_reason
from alto_policy.rungs import fraction_trained, has_reached, waits_at
from alto_policy.types import Job, JobId, Task, TaskId
from alto_policy.view import ClusterView, Status

__all__ = ["AltoPlus", "AltoPlusSettings", "foreseen_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AltoPlusSettings:
    """Defaults were chosen on some recorded grids and judged on others: `experiments/README.md`."""

    rounds: tuple[float, ...] = (0.05, 0.2)  # shares of a job's own steps
    keep: float = 0.35  # of a task's jobs that live to a round
    min_kept: int = 1
    lookahead: float = 0.5  # of the fall to the end, if the loss falls on with the log of the steps
    margin: float = 0.0  # relative: who is so close to the last one kept is kept as well
    rules: ExitRules = field(default_factory=ExitRules)

    def __post_init__(self) -> None:
        is_inside = all(0 < share < 1 for share in self.rounds)
        if not (self.rounds and is_inside and list(self.rounds) == sorted(set(self.rounds))):
            raise ValueError(f"rounds must be in (0, 1), at least one, and rise, got {self.rounds}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {self.keep}")
        if self.min_kept < 1:
            raise ValueError(f"min_kept must be at least 1, got {self.min_kept}")
        for name in ("lookahead", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


class AltoPlus(Dispatch):
    """As `Alto`, but the jobs of a task pause together at each round, and fewer go on each time."""

    def __init__(self, settings: AltoPlusSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._held: dict[TaskId, int] = {}  # rounds that are over

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        history = cluster.history(job)
        share = self._next_round(cluster.task_of(job).id)
        if reason := exit_reason(history, self._settings.rules):
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
            if len(cluster.jobs(task.id, Status.PAUSED)) + num_ended < len(task.jobs):
                return
            here = [j.id for j in task.jobs if waits_at(j.id, share, cluster)]
            waiting = [job for job in here if job not in stopped]
            if len(waiting) + num_ended < len(task.jobs):
                return
            self._held[task.id] = self._held.get(task.id, 0) + 1
            for loser in self._losers(waiting, share, cluster):
                stopped.add(loser)
                yield Stop(loser, ExitReason.UNDERPERFORMED)

    def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
        """Those that do not wait for the others at the next round."""
        share = self._next_round(task.id)
        paused = cluster.jobs(task.id, Status.PAUSED)
        yield [job for job in paused if share is None or not waits_at(job, share, cluster)]
        yield cluster.jobs(task.id, Status.QUEUED)

    def _losers(
        self, waiting: Sequence[JobId], share: float, cluster: ClusterView
    ) -> Iterator[JobId]:
        """All but the first; of equals the earlier one is kept."""
        if not waiting:
            return
        settings = self._settings
        loss_of = {
            job: foreseen_loss(cluster.history(job), cluster.spec(job), share, settings.lookahead)
            for job in waiting
        }
        ranked = sorted(waiting, key=loss_of.__getitem__)
        num_kept = max(settings.min_kept, math.ceil(round(settings.keep * len(ranked), 9)))
        last_kept = loss_of[ranked[min(num_kept, len(ranked)) - 1]]
        bound = last_kept + settings.margin * abs(last_kept)
        for job in ranked[num_kept:]:
            if settings.margin == 0 or not loss_of[job] <= bound:
                yield job

    def _next_round(self, task: TaskId) -> float | None:
        held = self._held.get(task, 0)
        return self._settings.rounds[held] if held < len(self._settings.rounds) else None


def foreseen_loss(
    history: Sequence[LossReported], spec: Job, share: float, lookahead: float
) -> float:
    """Validation loss at the share, and `lookahead` of its way to the end of the job.

    The way is that of a line over the logarithm of the steps, from the report at half of the share
    to that at the share. Infinite where a loss is not a number.
    """
    now = _first_at(history, spec, share)
    before = _first_at(history, spec, share / 2)
    to_come = 0.0
    if before.step < now.step:
        fall = (before.val_loss - now.val_loss) / math.log(now.step / before.step)
        to_come = fall * math.log(spec.steps / now.step)
    loss = now.val_loss - lookahead * to_come
    return math.inf if math.isnan(loss) else loss


def _first_at(history: Sequence[LossReported], spec: Job, share: float) -> LossReported:
    return next(report for report in history if fraction_trained(report, spec) >= share)
