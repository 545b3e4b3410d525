"""What goes wrong in a cluster, how often, and the dice that say when."""

import math
import random
from dataclasses import dataclass

__all__ = ["NO_FAULTS", "Dice", "Faults"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates of faults, none by default. Raises ValueError that quotes the field and its value."""

    seed: int = 0
    node_mtbf: float = math.inf  # mean seconds between two failures of one node
    node_repair: float = 3600.0  # mean seconds until its GPUs serve again
    job_mtbf: float = math.inf  # mean seconds of training until a job fails for good
    checkpoint_every: float = math.inf  # seconds of a rigid job's own time; a pause keeps all
    straggler_share: float = 0.0  # of the executors
    straggler_slowdown: float = 1.5  # factor on all their times
    lateness: float = 0.0  # sigma of a log-normal factor of median 1 on each latency

    def __post_init__(self) -> None:
        for name in ("node_mtbf", "node_repair", "job_mtbf", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, got {getattr(self, name)}")
        if not 0 <= self.straggler_share <= 1:
            raise ValueError(f"straggler_share must be in [0, 1], got {self.straggler_share}")
        if not 1 <= self.straggler_slowdown < math.inf:
            raise ValueError(
                f"straggler_slowdown must be at least 1, got {self.straggler_slowdown}"
            )
        if not 0 <= self.lateness < math.inf:
            raise ValueError(f"lateness must be at least 0, got {self.lateness}")

    @property
    def has_node_failures(self) -> bool:
        return self.node_mtbf < math.inf

    @property
    def has_job_failures(self) -> bool:
        return self.job_mtbf < math.inf


NO_FAULTS = Faults()


class Dice:
    """One generator for each cause: more of one fault leaves the draws of the others as they are.

    A fault that never happens draws nothing.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._nodes = random.Random(f"{faults.seed}/nodes")
        self._jobs = random.Random(f"{faults.seed}/jobs")
        self._stragglers = random.Random(f"{faults.seed}/stragglers")
        self._messages = random.Random(f"{faults.seed}/messages")

    def until_node_fails(self) -> float:
        return _exponential(self._nodes, self._faults.node_mtbf)

    def until_node_is_repaired(self) -> float:
        return _exponential(self._nodes, self._faults.node_repair)

    def until_job_fails(self) -> float:
        return _exponential(self._jobs, self._faults.job_mtbf)

    def slowdown(self) -> float:
        """Of an executor that starts."""
        share = self._faults.straggler_share
        is_slow = share > 0 and self._stragglers.random() < share
        return self._faults.straggler_slowdown if is_slow else 1.0

    @property
    def scatters(self) -> bool:
        """Whether two messages of one moment may arrive at two."""
        return self._faults.lateness > 0

    def late(self, seconds: float) -> float:
        """How long a message takes that takes so many seconds in the median."""
        if self._faults.lateness == 0 or seconds == 0:
            return seconds
        return seconds * self._messages.lognormvariate(0.0, self._faults.lateness)


def _exponential(generator: random.Random, mean: float) -> float:
    return generator.expovariate(1 / mean) if mean < math.inf else math.inf
