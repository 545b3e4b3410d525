"""The plain queue of a cluster: one job on a GPU, and nobody is served before his turn."""

from dataclasses import dataclass

from alto_policy.dispatch import Dispatch, Placement

__all__ = ["Exclusive", "ExclusiveSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExclusiveSettings:
    same_node: bool = False  # GPUs of a task are all of one node


class Exclusive(Dispatch):
    """A task that does not fit holds up all that came after it."""

    jobs_per_gpu = 1
    keeps_order = True
    backfills = False

    def __init__(self, settings: ExclusiveSettings, place: Placement | None = None) -> None:
        super().__init__(place)
        self.same_node = settings.same_node
