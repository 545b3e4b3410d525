"""The GPUs of a Ray cluster, and which node's each of the run's own is.

A run counts its GPUs once, at its start. A node that is lost takes none of them away: what is
placed on one of its GPUs goes to a free GPU of another node, or waits until there is one.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from alto_policy.types import Gpu, GpuId, TaskId

__all__ = ["Devices", "Node", "Share", "gpus_of", "nodes"]

_GPU, _ACCELERATOR = "GPU", "accelerator_type:"
_CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Node:
    """A living node, and how many devices it lends: its GPUs, or itself where no node has any."""

    id: str
    name: str
    kind: str
    num_devices: int
    has_gpus: bool

    @property
    def has_cuda(self) -> bool:
        """Whether its GPUs are real: one that Ray was only told of is computed on the CPU."""
        return self.kind != _CPU


@dataclass(frozen=True, slots=True)
class Share:
    """What one node gives to an executor."""

    node: str
    resources: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, node: Node, count: int) -> "Share":
        return cls(node.id, ((_GPU, float(count)),) if node.has_gpus else (("CPU", 1.0),))


def nodes() -> tuple[Node, ...]:
    """Those that can train, in the order of their names."""
    import ray

    found = []
    alive = [one for one in ray.nodes() if one["Alive"]]
    has_gpus = any(one["Resources"].get(_GPU, 0) >= 1 for one in alive)
    for one in alive:
        resources: Mapping[str, float] = one["Resources"]
        kinds = [name.removeprefix(_ACCELERATOR) for name in resources if _ACCELERATOR in name]
        count = int(resources.get(_GPU, 0)) if has_gpus else int(resources.get("CPU", 0) >= 1)
        if count:
            name = f"{one['NodeManagerHostname']}-{one['NodeID'][:8]}"
            kind = kinds[0] if has_gpus and kinds else _CPU
            found.append(Node(one["NodeID"], name, kind, count, has_gpus))
    return tuple(sorted(found, key=lambda node: node.name))


def gpus_of(found: Sequence[Node]) -> tuple[Gpu, ...]:
    """One for each device, those of a node together."""
    places = [node for node in found for _ in range(node.num_devices)]
    return tuple(
        Gpu(id=GpuId(number), kind=node.kind, node=node.name) for number, node in enumerate(places)
    )


class Devices:
    """Which nodes' devices the executors hold."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._home = {gpu.id: gpu.node for gpu in gpus}
        self._held: dict[TaskId, Counter[str]] = {}  # by id of the node

    def take(
        self,
        task: TaskId,
        gpus: Sequence[GpuId],
        found: Sequence[Node],
        suspected: Collection[str] = (),
    ) -> tuple[Share, ...] | None:
        """Devices of the nodes that the GPUs are of, or of others that live; None if too few are
        free. GPUs of one node stay together. Nodes `suspected` (by their ids) come last."""
        free = {node.name: node.num_devices - self._num_held(node.id) for node in found}
        by_name = {node.name: node for node in found}
        taken = Counter[str]()
        for home, count in Counter(self._home[gpu] for gpu in gpus).items():
            with_room = [node for node in found if free[node.name] >= count]
            if not with_room:
                return None
            name = max(
                with_room,
                key=lambda node: (node.id not in suspected, node.name == home, free[node.name]),
            ).name
            free[name] -= count
            taken[name] += count
        self._held[task] = Counter({by_name[name].id: count for name, count in taken.items()})
        return tuple(Share.of(by_name[name], count) for name, count in taken.items())

    def hold(self, task: TaskId, held: Mapping[str, int]) -> None:
        """Note what an executor of before has."""
        self._held[task] = Counter(held)

    def give_back(self, task: TaskId) -> None:
        self._held.pop(task, None)

    def _num_held(self, node: str) -> int:
        return sum(held[node] for held in self._held.values())
