"""Shortest task first, by what the policy believes of its duration; narrow ones fill the gaps."""

from dataclasses import dataclass

from alto_policy.dispatch import Dispatch, Placement
from alto_policy.estimates import DurationEstimate
from alto_policy.types import Task

__all__ = ["Sjf", "SjfSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SjfSettings:
    same_node: bool = False  # GPUs of a task are all of one node


class Sjf(Dispatch):
    """A wide task has no reservation: it waits as long as shorter ones find room."""

    keeps_order = True

    def __init__(
        self, settings: SjfSettings, estimate: DurationEstimate, place: Placement | None = None
    ) -> None:
        super().__init__(place)
        self.same_node = settings.same_node
        self._estimate = estimate

    def key(self, task: Task) -> float:
        return self._estimate(task)
