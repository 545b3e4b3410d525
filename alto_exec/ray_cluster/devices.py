"""The GPUs of a Ray cluster, and which node's each of the run's own is.

A run counts its GPUs and their nodes once, at its start. A node that comes back has another name
for Ray: a lost node of the run is stood in for by any that is not of the run, and is down where
there is none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """What a node gives to an executor: so many of its devices."""

    node: str  # its id
    device: str  # what Ray calls them
    count: int

    @classmethod
    def of(cls, node: Node, count: int) -> "Share":
        return cls(node.id, _GPU if node.has_gpus else "CPU", count)


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


def gpus_of(found: Sequence[Node], width: int = 1) -> tuple[Gpu, ...]:
    """One for each device, those of a node together; of each node as many as tasks of so many can
    use. Then the lowest free ones are of one node always."""
    places = [node for node in found for _ in range(node.num_devices // width * width)]
    return tuple(
        Gpu(id=GpuId(number), kind=node.kind, node=node.name) for number, node in enumerate(places)
    )


class Devices:
    """Which nodes' devices the executors hold."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._home = {gpu.id: gpu.node for gpu in gpus}
        self._num_of = Counter(gpu.node for gpu in gpus)  # by the node's name
        self._held: dict[TaskId, Share] = {}

    def homes(self, gpus: Sequence[GpuId]) -> frozenset[str]:
        """Names of the nodes that they are of."""
        return frozenset(self._home[gpu] for gpu in gpus)

    def lost(self, found: Sequence[Node]) -> frozenset[str]:
        """Names of the run's nodes that are gone, while nothing is there to stand in for them."""
        names = {node.name for node in found}
        spare = sum(node.num_devices for node in found if node.name not in self._num_of)
        lost = set[str]()
        for name, count in self._num_of.items():
            if name not in names:
                if spare <= 0:
                    lost.add(name)
                spare -= count
        return frozenset(lost)

    def take(self, task: TaskId, gpus: Sequence[GpuId], found: Sequence[Node]) -> Share | None:
        """Devices of the node that the GPUs are of, or of another that lives, rather one that is
        not of the run; None if there are too few on each."""
        homes = self.homes(gpus)
        free = {node.name: node.num_devices - self._num_held(node.id) for node in found}
        with_room = [node for node in found if free[node.name] >= len(gpus)]
        if not with_room:
            return None
        chosen = max(
            with_room,
            key=lambda node: (node.name in homes, node.name not in self._num_of, free[node.name]),
        )
        self._held[task] = Share.of(chosen, len(gpus))
        return self._held[task]

    def hold(self, task: TaskId, share: Share) -> None:
        """Note what an executor of before has."""
        self._held[task] = share

    def give_back(self, task: TaskId) -> None:
        self._held.pop(task, None)

    def _num_held(self, node: str) -> int:
        return sum(share.count for share in self._held.values() if share.node == node)
