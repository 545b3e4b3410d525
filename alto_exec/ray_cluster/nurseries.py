"""A nursery on each node, so that an executor's process is there at once when it is needed.

Where a head's own node is all of the cluster, berths need none while a process answers that the
head has forked from itself: a nursery is one more of Ray's, which takes from the cores that train.
"""

import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from alto_exec.ray_cluster.devices import Node
from alto_exec.ray_cluster.node import berth
from alto_runs.files import scratch

__all__ = ["Nurseries", "actor_of"]


class Nurseries:
    """They end with the head. What they have forked does not: it belongs to its berth."""

    def __init__(self, door: str = "") -> None:
        """Where there is but one node, the head's own: the door of the process that it has forked
        from itself."""
        self._door = door
        self._of_node: dict[str, Any] = {}  # by its id

    def tend(self, found: Iterable[Node]) -> None:
        """Have one begin on each node that has none; Ray begins one anew that has died."""
        for node in found:
            if not self._door:
                self._of(node.id)

    def of(self, node: str) -> Any:
        """Of the node with this id; None where berths need none."""
        if self._door and not _is_answered(self._door):
            self._door = ""
        return None if self._door else self._of(node)

    def _of(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if node not in self._of_node:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            self._of_node[node] = (
                actor_of(berth.Nursery, pings=1)
                .options(
                    num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=there
                )
                .remote()
            )
        return self._of_node[node]

    def ping(self, node: str) -> Any:
        """Resolves when the node answers; one's own does."""
        import ray

        if self._door:
            return ray.put(None)
        return self._of(node).ping.options(concurrency_group="pings").remote()


def _is_answered(door: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
        line.connect(door)
        return True
    return False


def actor_of(kind: type, **groups: int) -> Any:
    """The class for Ray, by value; calls of one group are carried out in their order."""
    import ray

    for module in (berth, scratch):
        ray.cloudpickle.register_pickle_by_value(module)
    as_actor: Any = ray.remote  # its types do not know of concurrency groups
    return as_actor(concurrency_groups=groups)(kind) if groups else as_actor(kind)
