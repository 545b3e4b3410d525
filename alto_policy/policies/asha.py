"""Asynchronous successive halving in its stopping form (Li et al. 2020, section 3)."""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.rungs import fraction_trained, rungs_from
from alto_policy.types import JobId, TaskId
from alto_policy.view import ClusterView

__all__ = ["Asha", "AshaSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AshaSettings:
    grace: float = 0.05  # of a job's own samples: the first rung
    eta: float = 4.0  # from rung to rung; 1 / eta of the jobs pass

    def __post_init__(self) -> None:
        if not 0 < self.grace < 1:
            raise ValueError(f"grace must be in (0, 1), got {self.grace}")
        if not 1 < self.eta < math.inf:
            raise ValueError(f"eta must be above 1, got {self.eta}")


class Asha(Dispatch):
    """At a rung a job goes on if it is in the best 1 / eta of those that came there so far.

    While fewer than eta have come, all go on.
    """

    def __init__(self, settings: AshaSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._rungs = rungs_from(settings.grace, settings.eta)
        self._losses: dict[tuple[TaskId, float], list[float]] = {}  # in increasing order

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        history, spec = cluster.history(job), cluster.spec(job)
        before = fraction_trained(history[-2], spec) if len(history) > 1 else 0.0
        now = fraction_trained(history[-1], spec)
        crossed = [rung for rung in self._rungs if before < rung <= now]
        task, loss = cluster.task_of(job).id, history[-1].val_loss
        passes = [self._passes(task, rung, loss) for rung in crossed]  # each rung takes the loss
        if not all(passes):
            yield Stop(job, ExitReason.UNDERPERFORMED)

    def _passes(self, task: TaskId, rung: float, loss: float) -> bool:
        losses = self._losses.setdefault((task, rung), [])
        insort(losses, loss)
        num_better = bisect_left(losses, loss)
        num_passing = int(len(losses) / self._settings.eta)
        return num_passing == 0 or num_better < num_passing
