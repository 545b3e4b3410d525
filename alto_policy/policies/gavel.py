"""Gavel's max-min fairness (Narayanan et al. 2020, sections 4.1 and 5) on GPUs of one kind."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.preemption import Preemptive, Service

__all__ = ["Gavel", "GavelSettings", "fair_share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GavelSettings:
    round_seconds: float = 360.0  # the paper's
    same_node: bool = False  # GPUs of a task are all of one node

    def __post_init__(self) -> None:
        if not 0 < self.round_seconds < math.inf:
            raise ValueError(f"round_seconds must be above 0, got {self.round_seconds}")


class Gavel(Preemptive):
    """Each task shall run for a fraction X of the time, and at each round the furthest behind runs.

    On one kind of GPU the program max min X * width, X <= 1, sum of X * width <= num_gpus is
    solved by filling up: X = min(1, share / width). The order is that of X / (fraction had so far),
    highest first.
    """

    def __init__(self, settings: GavelSettings) -> None:
        super().__init__(settings.round_seconds)
        self.same_node = settings.same_node

    def steady_until(self, services: Sequence[Service], now: float) -> float:
        return math.inf

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        share = fair_share([each.task.num_gpus for each in services], num_gpus)

        def urgency(service: Service) -> float:
            had = service.seconds(now)
            if had == 0:
                return -math.inf
            target = min(1.0, share / service.task.num_gpus)
            return -target * (now - service.arrived) / had

        return [urgency(service) for service in services]


def fair_share(widths: Sequence[int], num_gpus: int) -> float:
    """GPUs that each task may hold on average: those that want less leave theirs to the others."""
    left = float(num_gpus)
    for done, width in enumerate(sorted(widths)):
        share = left / (len(widths) - done)
        if width >= share:
            return share
        left -= width
    return math.inf
