"""A job while it holds a slot: what it is, and how far it has come."""

from dataclasses import dataclass

from alto_exec.adapters.bank import Slot
from alto_policy.types import Job

__all__ = ["Losses", "Progress", "Resident"]


@dataclass(frozen=True, slots=True)
class Losses:
    """What a job reports: mean loss of a token, over the steps since its last report and in
    validation."""

    train: float
    val: float


@dataclass(slots=True)
class Progress:
    """What a job must not lose beside its adapter and optimizer state."""

    step: int = 0  # optimizer steps taken
    loss_sum: float = 0.0  # of the steps since the last report
    loss_steps: int = 0
    best_val: float = float("inf")
    report: Losses | None = None  # made at `step`, until the next step is taken


@dataclass(slots=True)
class Resident:
    job: Job
    slot: Slot
    progress: Progress
    passes: int = 0  # of the step under way
    step_loss: float = 0.0  # sum over those passes
    step_tokens: int = 0  # tokens that those passes have seen
    is_lost: bool = False  # its loss is not finite; it trains no further
