"""The baseline that only batches: every job to its end, as they fit, in the order given."""

from dataclasses import dataclass

from alto_policy.dispatch import Dispatch, Placement

__all__ = ["Fifo", "FifoSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FifoSettings:
    """There is nothing to set."""


class Fifo(Dispatch):
    keeps_order = True

    def __init__(self, settings: FifoSettings, place: Placement | None = None) -> None:
        super().__init__(place)
