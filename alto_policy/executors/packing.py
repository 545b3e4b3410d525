"""Which waiting jobs go onto which GPU of an executor (paper, section 7 and appendix A.3)."""

from collections.abc import Collection, Iterable, Mapping

from alto_policy.decisions import Launch
from alto_policy.memory import Load, MemoryModel, load_of
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
    rooms = [_Room(gpu, memory, limit) for gpu in residents]
    for room, held in zip(rooms, residents.values(), strict=True):
        if held:
            room.take(load_of(held, task.max_length), len(held))
    misfits: set[tuple[int, int]] = set()  # ranks and batch sizes that the emptiest has no room for
    for job in jobs:
        room = rooms[0] if len(rooms) == 1 else max(rooms, key=_emptiness)  # the first of equals
        if room.places <= 0:
            break
        size = job.hyperparameters.rank, job.hyperparameters.batch_size
        if size in misfits:
            continue
        together = room.load.plus(job, task.max_length)
        if memory.held(together) <= memory.capacity:
            room.take(together)
            room.launched.append(job.id)
            misfits.clear()
        else:
            misfits.add(size)
    return [Launch(task.id, room.gpu, tuple(room.launched)) for room in rooms if room.launched]


def fits_alone(job: Job, memory: MemoryModel, task: Task) -> bool:
    """Whether an empty GPU could hold the job."""
    return memory.bytes((job,), task.max_length) <= memory.capacity


class _Room:
    """What a GPU has to give beside the jobs that are there."""

    def __init__(self, gpu: GpuId, memory: MemoryModel, places: int) -> None:
        self.gpu = gpu
        self.places = places  # still free
        self.load = Load()
        self.launched: list[JobId] = []
        self._memory = memory
        self.bytes = memory.capacity - memory.held(self.load)  # still free

    def take(self, load: Load, count: int = 1) -> None:
        """So many jobs more are there, and this is what all are together."""
        self.load = load
        self.places -= count
        self.bytes = self._memory.capacity - self._memory.held(load)


def _emptiness(room: _Room) -> tuple[bool, int]:
    return room.places > 0, room.bytes
