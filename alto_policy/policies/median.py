"""The median stopping rule (Golovin et al. 2017, section 3.2.2)."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.dispatch import Dispatch, Placement
from alto_policy.events import LossReported
from alto_policy.rungs import fraction_trained, has_reached
from alto_policy.types import Job, JobId
from alto_policy.view import ClusterView

__all__ = ["Median", "MedianSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MedianSettings:
    grace: float = 0.05  # of a job's own samples: nothing is stopped earlier
    min_others: int = 3  # jobs that came as far, for a median to count

    def __post_init__(self) -> None:
        if not 0 <= self.grace < 1:
            raise ValueError(f"grace must be in [0, 1), got {self.grace}")
        if self.min_others < 1:
            raise ValueError(f"min_others must be at least 1, got {self.min_others}")


class Median(Dispatch):
    """A job goes if its best loss is above the median of the others' mean losses so far."""

    def __init__(self, settings: MedianSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self._settings = settings
        self._sums: dict[JobId, list[float]] = {}  # of the validation losses of all reports so far

    def judge(self, job: JobId, cluster: ClusterView) -> Iterable[Pause | Stop]:
        history, spec = cluster.history(job), cluster.spec(job)
        if not has_reached(history, spec, self._settings.grace):
            return
        fraction = fraction_trained(history[-1], spec)
        others = (other for other in cluster.task_of(job).jobs if other.id != job)
        means = [self._mean(other, fraction, cluster.history(other.id)) for other in others]
        known = [mean for mean in means if mean is not None and math.isfinite(mean)]
        best = min(report.val_loss for report in history)
        if len(known) >= self._settings.min_others and best > median(known):
            yield Stop(job, ExitReason.UNDERPERFORMED)

    def _mean(self, job: Job, fraction: float, history: Sequence[LossReported]) -> float | None:
        """Mean validation loss up to the fraction; None of a job that has not come as far."""
        if not has_reached(history, job, fraction):
            return None
        sums = self._sums.setdefault(job.id, [])
        for report in history[len(sums) :]:
            sums.append(report.val_loss + (sums[-1] if sums else 0.0))
        count = bisect_right(history, fraction, key=lambda report: fraction_trained(report, job))
        return sums[count - 1] / count if count else None
