"""What is learnt of a machine."""

from dataclasses import dataclass

from alto_sim.times.overheads import Overheads
from alto_sim.times.step_time import StepTime

__all__ = ["Fitted"]


@dataclass(frozen=True, slots=True)
class Fitted:
    step_time: StepTime
    overheads: Overheads
