"""Which free GPUs a task gets: all of them at once, or none."""

from collections.abc import Sequence

from alto_policy.types import Gpu, GpuId

__all__ = ["Gangs"]

Free = tuple[GpuId, ...]


class Gangs:
    """Takes the lowest free GPUs; or, with `same_node`, those of the fullest node that has room."""

    def __init__(self, gpus: Sequence[Gpu], *, same_node: bool) -> None:
        self._node_of = {gpu.id: gpu.node for gpu in gpus} if same_node else None
        nodes = list(self._node_of.values()) if self._node_of else []
        self.widest = max(map(nodes.count, dict.fromkeys(nodes))) if nodes else len(gpus)

    def fits(self, free: Free, width: int) -> bool:
        return len(free) >= width and (self._node_of is None or bool(self._rooms(free, width)))

    def widest_in(self, free: Free) -> int:
        """The width of the widest task that fits."""
        if self._node_of is None or not free:
            return len(free)
        return max(map(len, self._rooms(free, 1)))

    def take(self, free: Free, width: int) -> tuple[Free, Free]:
        """GPUs out of `free`, which is in increasing order, and the rest; the width must fit."""
        if self._node_of is None:
            return free[:width], free[width:]
        gang = min(self._rooms(free, width), key=len)[:width]
        return tuple(gang), tuple(gpu for gpu in free if gpu not in gang)

    def _rooms(self, free: Free, width: int) -> list[list[GpuId]]:
        """The free GPUs of each node that has so many."""
        assert self._node_of is not None
        by_node: dict[str, list[GpuId]] = {}
        for gpu in free:
            by_node.setdefault(self._node_of[gpu], []).append(gpu)
        return [gpus for gpus in by_node.values() if len(gpus) >= width]
