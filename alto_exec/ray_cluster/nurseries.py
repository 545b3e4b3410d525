"""A nursery on each node, so that an executor's process is there at once when it is needed."""

from collections.abc import Iterable
from typing import Any

from alto_exec.ray_cluster import berth
from alto_exec.ray_cluster.devices import Node
from alto_runs import scratch

__all__ = ["Nurseries", "actor_of"]


class Nurseries:
    """They end with the head. What they have forked does not: it belongs to its berth."""

    def __init__(self) -> None:
        self._of_node: dict[str, Any] = {}  # by its id

    def tend(self, found: Iterable[Node]) -> None:
        """Have one begin on each node that has none; Ray begins one anew that has died."""
        for node in found:
            self.of(node.id)

    def of(self, node: str) -> Any:
        """Of the node with this id."""
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
        """Resolves when the node answers."""
        return self.of(node).ping.options(concurrency_group="pings").remote()


def actor_of(kind: type, **groups: int) -> Any:
    """The class for Ray, by value; calls of one group are carried out in their order."""
    import ray

    for module in (berth, scratch):
        ray.cloudpickle.register_pickle_by_value(module)
    as_actor: Any = ray.remote  # its types do not know of concurrency groups
    return as_actor(concurrency_groups=groups)(kind) if groups else as_actor(kind)
