"""What a set of jobs will hold of one GPU's memory."""

from collections.abc import Iterable
from dataclasses import dataclass

from alto_policy.types import Job

__all__ = ["MemoryModel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryModel:
    """Bytes on one GPU as a linear form, measured by the executor when it comes up.

    The paper's form is k0 + k1 * tokens (appendix A.3); the rank terms are ours.
    """

    capacity: int  # bytes that may be used, the safety margin taken off
    fixed: int  # backbone and workspace
    per_rank: int  # adapter, gradient and optimizer state for one unit of rank
    per_token: int  # activations of one token
    per_rank_token: int = 0  # activations of one token, for one unit of its job's rank
    max_jobs: int | None = None  # jobs at once, whatever the memory

    def __post_init__(self) -> None:
        if self.max_jobs is not None and self.max_jobs < 1:
            raise ValueError(f"max_jobs must be at least 1, got {self.max_jobs}")

    def bytes(self, jobs: Iterable[Job], max_length: int) -> int:
        """Most bytes held while `jobs` train together on sequences of up to `max_length` tokens."""
        total = self.fixed
        for job in jobs:
            total += self.share(job, max_length)
        return total

    def share(self, job: Job, max_length: int) -> int:
        """Bytes that the job adds, whatever is beside it."""
        chosen = job.hyperparameters
        tokens = chosen.batch_size * max_length
        return (
            self.per_rank * chosen.rank
            + (self.per_token + self.per_rank_token * chosen.rank) * tokens
        )

    def fits(self, jobs: Iterable[Job], max_length: int) -> bool:
        together = tuple(jobs)
        if self.max_jobs is not None and len(together) > self.max_jobs:
            return False
        return self.bytes(together, max_length) <= self.capacity
