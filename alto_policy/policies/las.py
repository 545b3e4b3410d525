"""Discretised least attained service (Gu et al. 2019, Tiresias, section 3.3)."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.preemption import Preemptive, Service
from alto_policy.rounds import check_round

__all__ = ["Las", "LasSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LasSettings:
    """The threshold is that of the code of Tiresias; the round is ours."""

    thresholds: tuple[float, ...] = (3600.0,)  # GPU-seconds after which a task falls a queue
    round_seconds: float = 300.0
    same_node: bool = False  # GPUs of a task are all of one node

    def __post_init__(self) -> None:
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds must be at least one and rise, got {self.thresholds}")
        check_round(self.round_seconds)


class Las(Preemptive):
    """Knows no durations: what has had little of the GPUs comes first, in the order of arrival."""

    def __init__(self, settings: LasSettings) -> None:
        super().__init__(settings.round_seconds)
        self.same_node = settings.same_node
        self._thresholds = settings.thresholds

    def steady_until(self, services: Sequence[Service], now: float) -> float:
        return math.inf

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        return [
            bisect_right(self._thresholds, each.seconds(now) * each.task.num_gpus)
            for each in services
        ]
