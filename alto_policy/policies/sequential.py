"""The baseline of today's practice: one job at a time on each GPU, to its end."""

from dataclasses import dataclass

from alto_policy.dispatch import Dispatch, Placement

__all__ = ["Sequential", "SequentialSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialSettings:
    """There is nothing to set."""


class Sequential(Dispatch):
    jobs_per_gpu = 1
    keeps_order = True

    def __init__(self, settings: SequentialSettings, place: Placement | None = None) -> None:
        super().__init__(place)
