"""What a machine tells of a task before it trains it."""

from dataclasses import dataclass

from alto_policy.memory import MemoryModel
from alto_policy.types import Task

__all__ = ["Forecast", "MeasuredTask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTask:
    """Times are in seconds. Sequences count as of the task's mean length."""

    task: Task
    memory: MemoryModel
    load_seconds: float  # until its backbone is on the device
    pass_seconds: float  # of a fused pass, whatever is in it
    token_seconds: float  # for each token of a fused pass
    evaluation_seconds: float  # of one job on the validation set


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a study will take on one device."""

    measured: tuple[MeasuredTask, ...]
    longest_seconds: float  # no job leaves early
    typical_seconds: float  # jobs leave as on made-up but typical loss curves
