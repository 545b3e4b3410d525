"""Which free GPUs a task gets: all of them at once, or none."""

from collections.abc import Sequence

from alto_policy.types import Gpu, GpuId

__all__ = ["Gangs"]


class Gangs:
    """Takes the lowest free GPUs; or, with `same_node`, those of the fullest node that has room."""

    def __init__(self, gpus: Sequence[Gpu], *, same_node: bool) -> None:
        self._node_of = {gpu.id: gpu.node for gpu in gpus} if same_node else None
        nodes = list(self._node_of.values()) if self._node_of else []
        self.widest = max(map(nodes.count, dict.fromkeys(nodes))) if nodes else len(gpus)

    def choose(self, free: Sequence[GpuId], width: int) -> tuple[GpuId, ...] | None:
        """GPUs out of `free`, which is in increasing order; None if the task does not fit."""
        if len(free) < width:
            return None
        if self._node_of is None:
            return tuple(free[:width])
        by_node: dict[str, list[GpuId]] = {}
        for gpu in free:
            by_node.setdefault(self._node_of[gpu], []).append(gpu)
        rooms = [gpus for gpus in by_node.values() if len(gpus) >= width]
        return tuple(min(rooms, key=len)[:width]) if rooms else None
