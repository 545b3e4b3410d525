"""A job in an executor: where it is, how far it has come, and where its news go."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from alto_policy.events import Departure
from alto_policy.types import Job
from alto_sim.curves.losses import Losses

__all__ = ["Outlet", "Place", "Trainee"]


class Place(Enum):
    AWAY = "away"  # holds no memory
    COMING = "coming"  # joins at the next pass
    TRAINING = "training"
    REPORTING = "reporting"  # the decisions on its report are not back
    HELD = "held"  # it is to leave, and has not heard of it


@dataclass(slots=True)
class Trainee:
    """How far a job has come."""

    spec: Job
    passes: int = 0  # over all its stays
    seconds: float = 0.0  # the same of a job whose duration is known, on a GPU of common speed
    kept: float = 0.0  # passes or seconds in its last checkpoint
    due: int = 0  # passes after which it reports next
    place: Place = Place.AWAY
    stay: int = 0  # counts comings and goings: what is on its way to or from another stay is void
    ordered: Departure | None = None  # how it shall leave
    has_heard: bool = False
    has_reported: bool = False
    is_lost: bool = False  # its training broke down
    best_val: float = math.inf
    since_best: int = 0  # reports

    @property
    def step(self) -> int:
        return self.passes // self.spec.hyperparameters.accumulation


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where a lane's news go; a report is on its way as soon as its evaluation is done."""

    # Seconds of the evaluation still to come, and whom it is of.
    report: Callable[[float, Sequence[tuple[Trainee, Losses]]], None]
    left: Callable[[Trainee, Departure], None]
