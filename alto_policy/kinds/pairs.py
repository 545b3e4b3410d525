"""Who is on which kind of GPU until the next round: pairs of a task and a kind, in their order."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from alto_policy.decisions import Decision, StartExecutor
from alto_policy.gangs import Gangs, Place
from alto_policy.preemption import Service, holdings
from alto_policy.types import GpuId, Task, TaskId
from alto_policy.view import ClusterView, Status
from alto_policy.yielding import yield_gpus

__all__ = ["KindRound", "Pair"]

_UNFINISHED = (Status.RUNNING, Status.PAUSING, Status.PAUSED, Status.QUEUED)


@dataclass(frozen=True, slots=True)
class Pair:
    """A task that might be on GPUs of one kind, or of several if it is wider than each."""

    service: Service
    kinds: tuple[str, ...]


@dataclass(slots=True)
class _Room:
    """GPUs by their places: those that may be given away, and of them those that are free."""

    gangs: Gangs
    counts: Counter[Place] = field(default_factory=Counter)
    free: dict[Place, list[GpuId]] = field(default_factory=dict)

    def add(self, gpus: Sequence[GpuId], *, are_free: bool = False) -> None:
        for gpu in gpus:
            place = self.gangs.place_of[gpu]
            self.counts[place] += 1
            if are_free:
                self.free.setdefault(place, []).append(gpu)

    def places(self, task: Task, kinds: tuple[str, ...]) -> Counter[Place] | None:
        """Where the task could be: the place with the least room that does, or all together."""
        if len(kinds) == 1:
            fitting = [
                (count, place)
                for place, count in self.counts.items()
                if place[0] == kinds[0] and count >= task.num_gpus
            ]
            return Counter({min(fitting)[1]: task.num_gpus}) if fitting else None
        left, found = task.num_gpus, Counter[Place]()
        for kind in kinds:
            for place in [each for each in self.counts if each[0] == kind]:
                taken = min(left, self.counts[place])
                found[place] += taken
                left -= taken
        return None if left else found

    def has(self, places: Counter[Place]) -> bool:
        return all(self.counts[place] >= count for place, count in places.items())

    def take(self, places: Counter[Place]) -> tuple[GpuId, ...] | None:
        """The GPUs, if all of them are free; those that are will be kept until the others are."""
        self.counts.subtract(places)
        gang: list[GpuId] = []
        for place, count in places.items():
            free = self.free.get(place, [])
            gang += free[:count]
            self.free[place] = free[count:]
        return tuple(sorted(gang)) if len(gang) == places.total() else None


class KindRound:
    """The first pair of each task that finds room counts. A task that holds GPUs keeps them if that
    is where it is, or else gives way, and begins to move if it found room elsewhere."""

    def __init__(
        self,
        holders: Mapping[TaskId, Service],
        cluster: ClusterView,
        gangs: Gangs,
        *,
        may_preempt: bool,
    ) -> None:
        self._holders = holders
        self._cluster = cluster
        self._room = room = _Room(gangs)
        room.add(cluster.free_gpus(), are_free=True)
        self._held: dict[TaskId, Counter[Place]] = {}  # of those that may give way
        self._settled: set[TaskId] = set()
        for name, gpus, fall_free in holdings(holders, cluster):
            if fall_free:
                room.add(gpus)
                if not _goes_on(name, cluster):
                    self._settled.add(name)
            elif may_preempt:
                room.add(gpus)
                self._held[name] = Counter([gangs.place_of[gpu] for gpu in gpus])
            else:
                self._settled.add(name)

    def decide(self, pairs: Sequence[Pair]) -> Iterator[Decision]:
        """For all unfinished tasks, the most urgent pair first."""
        starts: list[StartExecutor] = []
        for pair in pairs:
            task = pair.service.task
            if task.id not in self._settled and not self._stays(pair):
                places = self._room.places(task, pair.kinds)
                if places is not None and not self._is_on(pair):
                    gang = self._room.take(places)
                    self._settled.add(task.id)
                    if gang is not None and self._cluster.is_waiting(task.id):
                        starts.append(StartExecutor(task.id, gang))
        for name in self._held:  # of those that stay none is left
            self._holders[name].yields = True
            yield from yield_gpus(name, self._cluster)
        yield from starts

    def _stays(self, pair: Pair) -> bool:
        """Whether it keeps the GPUs that it holds, which nobody before it has taken."""
        task = pair.service.task.id
        if not (self._is_on(pair) and self._room.has(self._held[task])):
            return False
        self._room.counts.subtract(self._held.pop(task))
        self._settled.add(task)
        return True

    def _is_on(self, pair: Pair) -> bool:
        held = self._held.get(pair.service.task.id, ())
        return any(kind in pair.kinds for kind, _ in held)


def _goes_on(task: TaskId, cluster: ClusterView) -> bool:
    """Whether it will wait again: it was not cancelled."""
    return any(cluster.jobs(task, status) for status in _UNFINISHED)
