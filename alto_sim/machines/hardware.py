"""The GPUs as they are: on which nodes, and how fast."""

from collections.abc import Collection, Iterable, Mapping

from alto_policy.types import Gpu, GpuId

__all__ = ["GPUS_PER_NODE", "MOST_GPUS", "Hardware", "gpus_of"]

GPUS_PER_NODE = 8
MOST_GPUS = 1_000_000  # of a simulated cluster: each takes a hundred bytes and more


class Hardware:
    def __init__(self, gpus: Iterable[Gpu], speeds: Mapping[str, float]) -> None:
        self.nodes: dict[str, frozenset[GpuId]] = {}
        self._speeds: dict[GpuId, float] = {}
        self._kind_of: dict[GpuId, str] = {}
        for gpu in gpus:
            self.nodes[gpu.node] = self.nodes.get(gpu.node, frozenset()) | {gpu.id}
            self._kind_of[gpu.id] = gpu.kind
            if gpu.kind in speeds:
                self._speeds[gpu.id] = speeds[gpu.kind]

    def kinds(self, gang: tuple[GpuId, ...]) -> Collection[str]:
        return dict.fromkeys([self._kind_of[gpu] for gpu in gang])

    def slowdown(self, gang: tuple[GpuId, ...]) -> float:
        """Of a gang of rigid jobs: it is as slow as its slowest GPU."""
        return 1 / min([self._speeds.get(gpu, 1.0) for gpu in gang]) if self._speeds else 1.0


def gpus_of(
    num_gpus: int, *, gpus_per_node: int = GPUS_PER_NODE, kind: str = "H100"
) -> tuple[Gpu, ...]:
    """A cluster of equal nodes, the last of which may be smaller."""
    if num_gpus < 1 or gpus_per_node < 1:
        raise ValueError(
            f"num_gpus and gpus_per_node must be at least 1, got {num_gpus} and {gpus_per_node}"
        )
    return tuple(
        Gpu(id=GpuId(number), kind=kind, node=f"node{number // gpus_per_node}")
        for number in range(num_gpus)
    )
