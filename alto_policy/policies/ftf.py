"""Finish-time fairness (Mahajan et al. 2020, Themis, section 3): who loses most comes first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.estimates import DurationEstimate
from alto_policy.preemption import Preemptive, Service
from alto_policy.rounds import check_round

__all__ = ["Ftf", "FtfSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FtfSettings:
    round_seconds: float = 360.0  # as Gavel's
    same_node: bool = False  # GPUs of a task are all of one node

    def __post_init__(self) -> None:
        check_round(self.round_seconds)


class Ftf(Preemptive):
    """Serves the highest rho = T_shared / T_alone at each round.

    T_shared is the time since the arrival and what remains at full width. T_alone is the duration
    on a share of num_gpus / (number of tasks): duration * max(1, tasks * width / num_gpus).
    """

    def __init__(self, settings: FtfSettings, estimate: DurationEstimate) -> None:
        super().__init__(settings.round_seconds, estimate)
        self.same_node = settings.same_node

    def steady_until(self, services: Sequence[Service], now: float) -> float:
        """The rho of a task that runs stands still until it has lasted as long as was believed."""
        running = [each for each in services if each.up_since is not None]
        left = (each.believed - each.seconds(now) for each in running)
        return now + max(0.0, min(left, default=math.inf))

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        urgencies: list[float] = []
        for each in services:
            remaining = max(0.0, each.believed - each.seconds(now))
            crowding = max(1.0, len(services) * each.task.num_gpus / num_gpus)
            rho = (now - each.arrived + remaining) / (each.believed * crowding)
            urgencies.append(-rho)
        return urgencies
