"""Which jobs change GPUs within an executor when exits have left some with little to do.

The GPUs are in lock-step: a pass takes as long as the busiest of them. The paper is silent here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_policy.types import GpuId, Job, JobId

__all__ = ["Going", "lockstep_tokens", "moves"]


@dataclass(frozen=True, slots=True)
class Going:
    """A job that trains, and how far it still is from its end."""

    job: Job
    passes: int

    @property
    def rows(self) -> int:
        return self.job.hyperparameters.batch_size


Lanes = Mapping[GpuId, Sequence[Going]]


def lockstep_tokens(lanes: Lanes, max_length: int) -> int:
    """Tokens of the busiest GPU in each pass, summed until the last job ends."""
    ends = sorted({going.passes for lane in lanes.values() for going in lane})
    total, begin = 0, 0
    for end in ends:
        rows = (sum(g.rows for g in lane if g.passes > begin) for lane in lanes.values())
        total += (end - begin) * max(rows)
        begin = end
    return total * max_length


def moves(lanes: Lanes, max_length: int, cost_tokens: int) -> tuple[JobId, ...]:
    """Jobs to pause, so that they are launched where there is least to do.

    Each shortens the time to the end by more than `cost_tokens`, which is what a GPU trains while a
    job moves; the one that shortens it most goes first, and of equals the first.
    """
    lanes, moved = {gpu: tuple(lane) for gpu, lane in lanes.items()}, list[JobId]()
    left = lockstep_tokens(lanes, max_length)
    while True:
        after = [(lockstep_tokens(one, max_length), job, one) for job, one in _moved_by_one(lanes)]
        best = min(after, key=lambda each: each[0], default=None)
        if best is None or left - best[0] <= cost_tokens:
            return tuple(moved)
        left, job, lanes = best
        moved.append(job)


def _moved_by_one(lanes: Lanes) -> list[tuple[JobId, dict[GpuId, tuple[Going, ...]]]]:
    """Every job of the busiest GPU put where there is least to do without it."""
    busiest = max(lanes, key=lambda gpu: (_rows(lanes[gpu]), -gpu))
    found = []
    for going in lanes[busiest]:
        rest = {gpu: tuple(g for g in lane if g is not going) for gpu, lane in lanes.items()}
        target = min(rest, key=lambda gpu: (_rows(rest[gpu]), gpu))
        if target != busiest:
            found.append((going.job.id, {**rest, target: (*rest[target], going)}))
    return found


def _rows(lane: Sequence[Going]) -> int:
    return sum(going.rows for going in lane)
