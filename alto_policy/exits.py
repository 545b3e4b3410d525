"""When to give up on a job: pure functions of its loss history (paper, section 5)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import linear_regression

from alto_policy.decisions import ExitReason
from alto_policy.events import LossReported

__all__ = [
    "ExitRules",
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
    gap: float = 0.1  # (val - train) / train is above this: overfitting
    overfitting_patience: int = 2  # reports in a row

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
        if not 0 <= self.gap < math.inf:
            raise ValueError(f"gap must be at least 0, got {self.gap}")
        if self.overfitting_patience < 1:
            raise ValueError(
                f"overfitting_patience must be at least 1, got {self.overfitting_patience}"
            )


def exit_reason(history: Sequence[LossReported], rules: ExitRules) -> ExitReason | None:
    """The rule that has held for its patience up to the last report, or None to train on."""
    if is_non_finite(history[-1]):
        return ExitReason.NON_FINITE
    train = smooth([report.train_loss for report in history], rules.smoothing)
    val = [report.val_loss for report in history]
    if all(is_diverging(train[:n], val[:n], rules) for n in _last(val, rules.divergence_patience)):
        return ExitReason.DIVERGED
    if all(
        is_overfitting(train[:n], val[:n], rules) for n in _last(val, rules.overfitting_patience)
    ):
        return ExitReason.OVERFITTED
    return None


def is_non_finite(report: LossReported) -> bool:
    return not (math.isfinite(report.train_loss) and math.isfinite(report.val_loss))


def is_diverging(train: Sequence[float], val: Sequence[float], rules: ExitRules) -> bool:
    """Whether least-squares lines through the last points of both series rise."""
    if len(train) < rules.window:
        return False
    reports = range(rules.window)
    for series in (train, val):
        points = series[-rules.window :]
        if rules.slope >= 0 and _falls(points):
            return False
        if linear_regression(reports, points).slope < rules.slope:
            return False
    return True


def _falls(points: Sequence[float]) -> bool:
    """So does a line through them, as most do: spares a regression for each report."""
    return all(later < earlier for earlier, later in pairwise(points))


def is_overfitting(train: Sequence[float], val: Sequence[float], rules: ExitRules) -> bool:
    """Whether the last validation loss is above the train loss by more than the gap."""
    return len(train) > 0 and val[-1] - train[-1] > rules.gap * train[-1]


def smooth(losses: Sequence[float], weight: float) -> list[float]:
    """Exponential moving average, begun at the first loss."""
    return list(accumulate(losses, lambda old, new: weight * new + (1 - weight) * old))


def _last(reports: Sequence[float], patience: int) -> range:
    """Lengths of the history at its last `patience` reports; 0 where it is too short."""
    return range(max(0, len(reports) - patience + 1), len(reports) + 1)
