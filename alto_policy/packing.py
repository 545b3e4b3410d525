"""Which waiting jobs go onto which GPU of an executor (paper, section 7 and appendix A.3)."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from alto_policy.decisions import Launch
from alto_policy.memory import MemoryModel
from alto_policy.types import GpuId, Job, JobId, Task

__all__ = ["by_batch_size", "fits_alone", "pack"]


def by_batch_size(jobs: Iterable[Job], first: int | None = None) -> list[Job]:
    """Jobs of batch size `first`, then groups of decreasing batch size; stable within a group."""

    def group(job: Job) -> tuple[bool, int]:
        batch_size = job.hyperparameters.batch_size
        return batch_size != first, -batch_size

    return sorted(jobs, key=group)


def pack(
    jobs: Iterable[Job],
    residents: Mapping[GpuId, Collection[Job]],
    memory: MemoryModel,
    task: Task,
    most: int | None = None,
) -> list[Launch]:
    """Put each job, in order, on the emptiest GPU if it fits there; at most `most` on one GPU."""
    limit = len(task.jobs)
    for count in (most, memory.max_jobs):
        limit = limit if count is None else min(limit, count)
    rooms = [
        _Room(gpu, memory.capacity - memory.bytes(held, task.max_length), limit - len(held))
        for gpu, held in residents.items()
    ]
    for job in jobs:
        room = rooms[0] if len(rooms) == 1 else max(rooms, key=_emptiness)  # the first of equals
        if room.places <= 0:
            break
        share = memory.share(job, task.max_length)
        if share <= room.bytes:
            room.bytes -= share
            room.places -= 1
            room.launched.append(job.id)
    return [Launch(task.id, room.gpu, tuple(room.launched)) for room in rooms if room.launched]


def fits_alone(job: Job, memory: MemoryModel, task: Task) -> bool:
    """Whether an empty GPU could hold the job."""
    return memory.fixed + memory.share(job, task.max_length) <= memory.capacity


@dataclass(slots=True)
class _Room:
    gpu: GpuId
    bytes: int  # still free
    places: int  # still free
    launched: list[JobId] = field(default_factory=list)


def _emptiness(room: _Room) -> tuple[bool, int]:
    return room.places > 0, room.bytes
