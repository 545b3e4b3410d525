"""How many rows the adapters of an executor have, and when they move (`Seating` there): what was
recorded is gone then."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId

__all__ = ["BankRows"]


@dataclass(slots=True)
class BankRows:
    """Rows that nobody uses, or a job that has paused, stay until they are needed."""

    memory: MemoryModel
    max_length: int
    rows: int = 0
    parked: dict[JobId, int] = field(default_factory=dict)  # ranks, who paused first in front

    def park(self, job: Job) -> None:
        self.parked[job.id] = _rank(job)

    def forget(self, job: JobId) -> None:
        """It will not train again."""
        self.parked.pop(job, None)

    def launch(self, jobs: Sequence[Job], seated: Sequence[Job]) -> bool:
        """Whether the rows move as these jobs are launched beside those that are seated."""
        before, ids = self.rows, {job.id for job in jobs}
        taken = sum(map(_rank, seated))
        new = [job for job in jobs if job.id not in self.parked]
        coming = sum(map(_rank, new))
        most = self.memory.most_rows([*seated, *jobs], self.max_length)
        if self.rows > most:
            for other in [parked for parked in self.parked if parked not in ids]:
                if taken + self._parked + coming <= most:
                    break
                del self.parked[other]
            self.rows = min(self.rows, taken + self._parked + coming)
        others = [parked for parked in self.parked if parked not in ids]
        needed = taken + self._parked - sum(self.parked[other] for other in others) + coming
        if needed > self.rows:
            for other in others:
                del self.parked[other]
            self.rows = needed
        for job in jobs:
            taken += _rank(job)
            if self.parked.pop(job.id, None) is not None:
                continue
            while self.parked and self.rows < taken + self._parked:
                del self.parked[next(iter(self.parked))]
        return self.rows != before

    @property
    def _parked(self) -> int:
        return sum(self.parked.values())


def _rank(job: Job) -> int:
    return job.hyperparameters.rank
