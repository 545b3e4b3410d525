"""When to give up on a job: pure functions of its loss history (paper, section 5)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import gt
from statistics import linear_regression

from alto_policy.decisions import ExitReason
from alto_policy.events import LossReported
from alto_policy.types import JobId

__all__ = [
    "ExitRules",
    "ExitWatch",
    "exit_reason",
    "is_diverging",
    "is_non_finite",
    "is_overfitting",
    "smooth",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRules:
    """The paper's values; `smoothing`, which it does not give, halves the past at each report."""

    smoothing: float = 0.5  # weight of the newest train loss
    window: int = 2  # reports under the slopes
    slope: float = 0.001  # both losses rise at least so much a report: diverging
    divergence_patience: int = 2  # reports in a row
    gap: float | None = 0.1  # (val - train) / train is above this: overfitting; None: never is
    overfitting_patience: int = 2  # reports in a row

    @property
    def reach(self) -> int:
        """Reports, the last ones, that any rule looks at."""
        return max(self.window + self.divergence_patience - 1, self.overfitting_patience)

    def __post_init__(self) -> None:
        if not 0 < self.smoothing <= 1:
            raise ValueError(f"smoothing must be in (0, 1], got {self.smoothing}")
        if self.window < 2:
            raise ValueError(f"window must be at least 2, got {self.window}")
        if not math.isfinite(self.slope):
            raise ValueError(f"slope must be finite, got {self.slope}")
        if self.divergence_patience < 1:
            raise ValueError(
                f"divergence_patience must be at least 1, got {self.divergence_patience}"
            )
        if self.gap is not None and not 0 <= self.gap < math.inf:
            raise ValueError(f"gap must be at least 0, got {self.gap}")
        if self.overfitting_patience < 1:
            raise ValueError(
                f"overfitting_patience must be at least 1, got {self.overfitting_patience}"
            )


def exit_reason(history: Sequence[LossReported], rules: ExitRules) -> ExitReason | None:
    """The rule that has held for its patience up to the last report, or None to train on."""
    train = smooth([report.train_loss for report in history], rules.smoothing)
    return _verdict(history, train[-rules.reach :], rules)


class ExitWatch:
    """`exit_reason` of many jobs, at a cost that does not grow with their histories."""

    def __init__(self, rules: ExitRules) -> None:
        self._rules = rules
        self._reach = rules.reach
        # By job the reports that were seen, and the last of its smoothed train losses.
        self._known: dict[JobId, tuple[int, Sequence[float]]] = {}

    def reason(self, job: JobId, history: Sequence[LossReported]) -> ExitReason | None:
        """The history is that of the last time, with reports added to it."""
        seen, train = self._known.get(job, (0, ()))
        if added := [report.train_loss for report in history[seen:]]:
            smoothed = smooth([*train[-1:], *added], self._rules.smoothing)
            train = [*train[:-1], *smoothed][-self._reach :]
            self._known[job] = len(history), train
        return _verdict(history, train, self._rules)


def _verdict(
    history: Sequence[LossReported], train: Sequence[float], rules: ExitRules
) -> ExitReason | None:
    """`train` is smoothed; it reaches as far back as the rules look."""
    if is_non_finite(history[-1]):
        return ExitReason.NON_FINITE
    val = [report.val_loss for report in history[-len(train) :]]
    if _have_held(is_diverging, train, val, rules, rules.divergence_patience):
        return ExitReason.DIVERGED
    if _have_held(is_overfitting, train, val, rules, rules.overfitting_patience):
        return ExitReason.OVERFITTED
    return None


def is_non_finite(report: LossReported) -> bool:
    return not (math.isfinite(report.train_loss) and math.isfinite(report.val_loss))


def is_diverging(train: Sequence[float], val: Sequence[float], rules: ExitRules) -> bool:
    """Whether least-squares lines through the last points of both series rise."""
    if len(train) < rules.window:
        return False
    for series in (val, train):
        points = series[-rules.window :]
        if rules.slope >= 0 and all(map(gt, points, points[1:])):
            return False  # a line through them falls, as most do: spares a regression
        if linear_regression(range(rules.window), points).slope < rules.slope:
            return False
    return True


def is_overfitting(train: Sequence[float], val: Sequence[float], rules: ExitRules) -> bool:
    """Whether the last validation loss is above the train loss by more than the gap."""
    if rules.gap is None:
        return False
    return len(train) > 0 and val[-1] - train[-1] > rules.gap * train[-1]


def smooth(losses: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, begun at the first loss."""
    kept = 1 - weight
    level = losses[0]
    smoothed = [level]
    for loss in losses[1:]:
        level = weight * loss + kept * level
        smoothed.append(level)
    return smoothed


def _have_held(
    rule: Callable[[Sequence[float], Sequence[float], ExitRules], bool],
    train: Sequence[float],
    val: Sequence[float],
    rules: ExitRules,
    patience: int,
) -> bool:
    """At each of the last `patience` reports, the newest first: most rules hold at none."""
    if not rule(train, val, rules):
        return False
    count = len(val)
    for end in range(count - 1, max(-1, count - patience), -1):
        if not rule(train[:end], val[:end], rules):
            return False
    return True
