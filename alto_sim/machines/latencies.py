"""How late messages are: real clusters are late, and a policy must live with it."""

import math
from dataclasses import dataclass, fields

__all__ = ["Latencies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Seconds between a decision or a report and its effect at the other end."""

    start: float  # until an executor's processes run
    load: float  # from then on, until it has loaded its backbone
    launch: float  # until a job may join a pass
    report: float  # until the policy hears of a report
    pause: float  # until a job hears that it shall pause
    checkpoint: float  # from then on, until a job that pauses has written its state
    stop: float  # until a job, or an executor, hears that it shall stop

    @property
    def told(self) -> str:
        """Zeros as well: what is not waited for is no secret."""
        return ", ".join(f"{each.name} {getattr(self, each.name):g}" for each in fields(self))

    def __post_init__(self) -> None:
        for field in fields(self):
            seconds = getattr(self, field.name)
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{field.name} must be at least 0 seconds, got {seconds}")
