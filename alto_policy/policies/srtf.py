"""Shortest remaining time first: what is nearly done is never in anybody's way."""

from collections.abc import Sequence
from dataclasses import dataclass

from alto_policy.estimates import DurationEstimate
from alto_policy.preemption import Preemptive, Service

__all__ = ["Srtf", "SrtfSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SrtfSettings:
    same_node: bool = False  # GPUs of a task are all of one node


class Srtf(Preemptive):
    """A task that lasts longer than was believed counts as nearly done."""

    def __init__(self, settings: SrtfSettings, estimate: DurationEstimate) -> None:
        super().__init__(estimate=estimate)
        self.same_node = settings.same_node

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        return [max(0.0, each.believed - each.seconds(now)) for each in services]
