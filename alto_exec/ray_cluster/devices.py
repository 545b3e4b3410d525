"""The GPUs of a Ray cluster, and which node's each of the run's own is.

A run counts its GPUs and their nodes when it begins, and when it goes on. A node that comes back
has another name for Ray: a lost node of the run is stood in for by any that is not of the run, and
is down where there is none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_exec.events.moving import Move, nodes_of, numbered, resized
from alto_exec.events.past import Past
from alto_policy.types import Gpu, GpuId, TaskId
from alto_policy.view import ClusterView
from alto_runs.study import ExecutorSpec

__all__ = ["Devices", "Node", "Share", "address_of", "gpus_of", "move_of", "nodes"]

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
    """The devices of an executor: by the ids of their nodes, those of a node together."""

    nodes: tuple[str, ...]
    device: str  # what Ray calls them

    @classmethod
    def of(cls, *parts: tuple[Node, int]) -> "Share":
        """Of nodes that give so many."""
        nodes = tuple(node.id for node, count in parts for _ in range(count))
        return cls(nodes, _GPU if parts[0][0].has_gpus else "CPU")

    def place(self, rank: int) -> tuple[int, int]:
        """Which of its node's devices that one is, and how many of them there are."""
        node = self.nodes[rank]
        return self.nodes[:rank].count(node), self.nodes.count(node)


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


def address_of(node: str) -> str:
    """Under which others reach the node with this id."""
    import ray

    return next(str(one["NodeManagerAddress"]) for one in ray.nodes() if one["NodeID"] == node)


def gpus_of(
    found: Sequence[Node], width: int = 1, *, across_nodes: bool = False
) -> tuple[Gpu, ...]:
    """One for each device, those of a node together; of each node as many as tasks of so many can
    use. Then the lowest free ones are of one node always. All, if a task may have them of several
    nodes and must."""
    if across_nodes and all(node.num_devices < width for node in found):
        width = 1 if sum(node.num_devices for node in found) >= width else width
    places = [node for node in found for _ in range(node.num_devices // width * width)]
    return tuple(
        Gpu(id=GpuId(number), kind=node.kind, node=node.name) for number, node in enumerate(places)
    )


def move_of(found: Sequence[Node], spec: ExecutorSpec, past: Past, view: ClusterView) -> Move:
    """To the nodes that are found, with as many GPUs for each task as that says. A node that is
    missing is stood in for by one with as many GPUs, or else is lost; what stands in for none
    joins."""
    there = gpus_of(found, spec.gpus or 1, across_nodes=spec.across_nodes)
    before, now = _counted(view.gpus), _counted(there)
    stand_ins = _stand_ins(before, now)
    stays = {name for name in before if name in stand_ins or before[name] == now[name]}
    come = [
        gpus
        for name, gpus in nodes_of(there).items()
        if name not in stays and name not in stand_ins.values()
    ]
    return Move(
        gone=tuple(node for node in before if node not in stays and node not in past.lost_nodes),
        come=numbered(come, view.gpus),
        resized=resized(view, spec.gpus or 1, spec.widths),
    )


def _counted(gpus: Sequence[Gpu]) -> Counter[str]:
    return Counter(gpu.node for gpu in gpus)


def _stand_ins(run: Mapping[str, int], there: Mapping[str, int]) -> Mapping[str, str]:
    """For nodes of the run that are missing, others that are there and have as many GPUs."""
    spare = {name: count for name, count in there.items() if name not in run}
    found: dict[str, str] = {}
    for name, count in run.items():
        same = (each for each in spare if spare[each] == count)
        if name not in there and (stand_in := next(same, None)):
            found[name] = stand_in
            del spare[stand_in]
    return found


class Devices:
    """Which nodes' devices the executors hold, each of them `width` or a multiple."""

    def __init__(self, gpus: Sequence[Gpu], width: int = 1, *, across_nodes: bool = False) -> None:
        self._width = width
        self._across_nodes = across_nodes
        self._home = {gpu.id: gpu.node for gpu in gpus}
        self._num_of = _counted(gpus)  # by the node's name
        self._held: dict[TaskId, Share] = {}

    def homes(self, gpus: Sequence[GpuId]) -> frozenset[str]:
        """Names of the nodes that they are of."""
        return frozenset(self._home[gpu] for gpu in gpus)

    def lost(self, found: Sequence[Node]) -> frozenset[str]:
        """Names of the run's nodes that are gone, while nothing is there to stand in for them."""
        there = _counted(gpus_of(found, self._width, across_nodes=self._across_nodes))
        stand_ins = _stand_ins(self._num_of, there)
        spare = there.total() - sum(there[name] for name in (*self._num_of, *stand_ins.values()))
        lost = set[str]()
        for name, count in self._num_of.items():
            if name not in there and name not in stand_ins:
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
            return self._spread(task, gpus, found, free)
        chosen = max(
            with_room,
            key=lambda node: (node.name in homes, node.name not in self._num_of, free[node.name]),
        )
        self._held[task] = Share.of((chosen, len(gpus)))
        return self._held[task]

    def _spread(
        self,
        task: TaskId,
        gpus: Sequence[GpuId],
        found: Sequence[Node],
        free: Mapping[str, int],
    ) -> Share | None:
        """Of several nodes, if it may be and no node of the run is so wide: as many of each as the
        GPUs are, and what is missing of others, rather those that are not of the run."""
        if not self._across_nodes or len(gpus) <= max(self._num_of.values()):
            return None
        wanted = Counter(self._home[gpu] for gpu in gpus)
        left, parts = len(gpus), list[tuple[Node, int]]()
        for node in sorted(found, key=lambda n: (n.name not in wanted, n.name in self._num_of)):
            count = min(left, free[node.name], wanted.get(node.name, left))
            if count:
                parts.append((node, count))
                left -= count
        if left:
            return None
        self._held[task] = Share.of(*parts)
        return self._held[task]

    def hold(self, task: TaskId, share: Share) -> None:
        """Note what an executor of before has."""
        self._held[task] = share

    def give_back(self, task: TaskId) -> None:
        self._held.pop(task, None)

    def _num_held(self, node: str) -> int:
        return sum(share.nodes.count(node) for share in self._held.values())
