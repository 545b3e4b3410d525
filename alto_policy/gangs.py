"""Which free GPUs a task gets: all of them at once, or none, and of one kind where that can be."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from alto_policy.types import Gpu, GpuId, Kinds, Task

__all__ = ["Free", "Gangs", "Place", "Widths"]

Free = tuple[GpuId, ...]
Place = tuple[str, str]  # a kind, and a node where a gang may not leave it


class Widths(NamedTuple):
    """Of the gangs that find their GPUs: those of one kind, and those that no kind has room for
    even when it is free."""

    alone: int  # the widest of one kind
    least_mixed: int  # the narrowest that may have several kinds
    mixed: int  # the widest of them

    def hold(self, width: int) -> bool:
        return width <= self.alone or self.least_mixed <= width <= self.mixed


class Gangs:
    """Takes the lowest free GPUs of the first kind that has room, in the order of the task's own
    kinds, else of their ids; with `same_node`, those of the fullest node of that kind.

    A gang has several kinds only if it is wider than each: a gang is as slow as its slowest GPU,
    and has the memory of its smallest. In all that follows `free` is in increasing order.
    """

    def __init__(self, gpus: Sequence[Gpu], *, same_node: bool) -> None:
        self.gpus = gpus
        ordered = sorted(gpus, key=lambda gpu: gpu.id)
        self._all = tuple([gpu.id for gpu in ordered])
        self.kinds = tuple(dict.fromkeys([gpu.kind for gpu in ordered]))
        self.place_of: dict[GpuId, Place] = {
            gpu.id: (gpu.kind, gpu.node if same_node else "") for gpu in ordered
        }
        self.counts = Counter(self.place_of.values())
        self.of_kind = Counter([gpu.kind for gpu in ordered])
        self._same_node = same_node
        self.is_uniform = len(self.counts) <= 1  # all GPUs are alike to a gang
        self._alike: dict[int, Widths] = {}  # of so many of them: a trace asks half a million times

    @classmethod
    def of(cls, gpus: Sequence[Gpu], known: "Gangs | None", *, same_node: bool = False) -> "Gangs":
        """Those that are known, while these are their GPUs: a run may go on with others."""
        if known is not None and known.gpus is gpus:
            return known
        return cls(gpus, same_node=same_node)

    def can_hold(self, width: int, kinds: Kinds) -> bool:
        """Whether it would fit if all GPUs were free."""
        if self.is_uniform and kinds is None:
            return width <= len(self._all)
        return self.fits(self._all, width, kinds)

    def fits(self, free: Free, width: int, kinds: Kinds) -> bool:
        if self.is_uniform and kinds is None:
            return width <= len(free)
        return self.widths(free, kinds).hold(width)

    def widths(self, free: Free, kinds: Kinds) -> Widths:
        if self.is_uniform and kinds is None:
            count = len(free)
            alike = self._alike.get(count)
            if alike is None:
                alike = self._alike[count] = Widths(count, 1, 0)
            return alike
        rooms = self._rooms(free, kinds)
        sizes = [len(room) for room in rooms.values()]
        mixed = 0 if self._same_node else sum(sizes)
        return Widths(max(sizes, default=0), self._widest_alone(kinds) + 1, mixed)

    def take(self, free: Free, width: int, kinds: Kinds) -> tuple[Free, Free]:
        """GPUs out of `free`, and the rest; the width must fit."""
        if self.is_uniform and kinds is None:
            return free[:width], free[width:]
        gang = self._gang(self._rooms(free, kinds), width, kinds)
        return gang, tuple([gpu for gpu in free if gpu not in gang])

    def found(self, free: Free, tasks: Iterable[Task]) -> Iterator[tuple[Task, Free]]:
        """Those of the tasks, in this order, that still find their GPUs."""
        for task in tasks:
            if self.fits(free, task.num_gpus, task.kinds):
                gang, free = self.take(free, task.num_gpus, task.kinds)
                yield task, gang

    def choices(self, width: int, kinds: Kinds) -> Sequence[Kinds]:
        """The kinds one by one, in the order of `take`; all together where each has too few."""
        if self.is_uniform or width > self._widest_alone(kinds):
            return (kinds,)
        return [(kind,) for kind in self._order(kinds)]

    def has_any_of(self, gang: Free, kinds: Kinds) -> bool:
        """Whether a GPU of the gang is of these kinds."""
        return kinds is None or any(self.place_of[gpu][0] in kinds for gpu in gang)

    def _gang(self, rooms: dict[Place, list[GpuId]], width: int, kinds: Kinds) -> Free:
        order = self._order(kinds)
        if alone := [place for place, room in rooms.items() if len(room) >= width]:
            first = min(alone, key=lambda place: (order.index(place[0]), len(rooms[place])))
            return tuple(rooms[first][:width])
        together = [
            gpu
            for kind in order
            for place, room in rooms.items()
            if place[0] == kind
            for gpu in room
        ]
        return tuple(sorted(together[:width]))

    def _order(self, kinds: Kinds) -> tuple[str, ...]:
        return self.kinds if kinds is None else kinds

    def _widest_alone(self, kinds: Kinds) -> int:
        counts = (n for (kind, _), n in self.counts.items() if kinds is None or kind in kinds)
        return max(counts, default=0)

    def _rooms(self, free: Free, kinds: Kinds) -> dict[Place, list[GpuId]]:
        """The free GPUs of each place, the place of the lowest first."""
        rooms: dict[Place, list[GpuId]] = {}
        for gpu in free:
            place = self.place_of[gpu]
            if kinds is None or place[0] in kinds:
                rooms.setdefault(place, []).append(gpu)
        return rooms
