"""Which GPUs are held, free, or out of order."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from alto_policy.ledger.transitions import ImpossibleEventError
from alto_policy.types import Gpu, GpuId, TaskId

__all__ = ["GpuPool"]


class GpuPool:
    """A GPU of a node that is down is not free, though nobody may hold it."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self.owner: dict[GpuId, TaskId] = {}
        self.lost: set[GpuId] = set()
        self.free: list[GpuId] = []  # lowest id first
        self._nodes: dict[str, list[GpuId]] = {}
        self.kind_of = {gpu.id: gpu.kind for gpu in gpus}
        for gpu in sorted(gpus, key=lambda each: each.id):
            self.free.append(gpu.id)
            self._nodes.setdefault(gpu.node, []).append(gpu.id)

    def take(self, gpus: Sequence[GpuId], task: TaskId) -> None:
        """All of them are free."""
        free, owner = self.free, self.owner
        for gpu in gpus:
            owner[gpu] = task
            del free[bisect_left(free, gpu)]

    def give_back(self, gpus: Iterable[GpuId]) -> None:
        """All of them are held."""
        for gpu in gpus:
            del self.owner[gpu]
            if gpu not in self.lost:
                insort(self.free, gpu)

    def lose(self, node: str) -> tuple[TaskId, ...]:
        """The tasks that hold GPUs of the node; raises ImpossibleEventError if it is down."""
        gpus = self._gpus_of(node, is_down=False)
        self.lost.update(gpus)
        self.free = [gpu for gpu in self.free if gpu not in self.lost]
        return tuple(dict.fromkeys(self.owner[gpu] for gpu in gpus if gpu in self.owner))

    def restore(self, node: str) -> None:
        """Raises ImpossibleEventError if the node is not down."""
        gpus = self._gpus_of(node, is_down=True)
        self.lost.difference_update(gpus)
        for gpu in gpus:
            if gpu not in self.owner:
                insort(self.free, gpu)

    def replace(self, node: str, gpus: Sequence[Gpu]) -> None:
        """The node is there with these GPUs, whatever it had before. Raises ImpossibleEventError if
        it is up, or its old GPUs are held, or another node has one of these."""
        old = self._gpus_of(node, is_down=True) if node in self._nodes else []
        if held := [gpu for gpu in old if gpu in self.owner]:
            raise ImpossibleEventError(f"NodeUp: GPU {held[0]} is held by {self.owner[held[0]]}")
        ids = sorted(gpu.id for gpu in gpus)
        others = {gpu for name, own in self._nodes.items() if name != node for gpu in own}
        if len(set(ids)) != len(ids) or not others.isdisjoint(ids):
            raise ImpossibleEventError(f"NodeUp: the ids {ids} of node {node} are taken")
        if strangers := [gpu.node for gpu in gpus if gpu.node != node]:
            raise ImpossibleEventError(f"NodeUp: a GPU of node {strangers[0]} is not of {node}")
        self.lost.difference_update(old)
        self._nodes[node] = ids
        self.kind_of.update((gpu.id, gpu.kind) for gpu in gpus)
        for gpu in ids:
            insort(self.free, gpu)

    def _gpus_of(self, node: str, *, is_down: bool) -> Sequence[GpuId]:
        gpus = self._nodes.get(node)
        kind = "NodeUp" if is_down else "NodeDown"
        if gpus is None:
            raise ImpossibleEventError(f"{kind}: there is no node {node}")
        if (gpus[0] in self.lost) is not is_down:
            raise ImpossibleEventError(f"{kind}: node {node} is {'up' if is_down else 'down'}")
        return gpus
