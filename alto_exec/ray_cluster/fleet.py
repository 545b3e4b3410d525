"""Brings executors up as actors of a Ray cluster, and finds those that an earlier head has left.

An actor and its placement group bear the same name: run, task, and which of the task's executors it
is. They outlive the head that made them.
"""

from collections.abc import Collection, Mapping
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from alto_exec.backend import StartedExecutor
from alto_exec.ray_cluster.devices import Share
from alto_exec.ray_cluster.remote import LISTENERS, Patience, RemoteExecutor
from alto_exec.ray_cluster.worker import Worker
from alto_exec.site import Start
from alto_policy.types import TaskId
from alto_runs.errors import UserError

__all__ = ["NAMESPACE", "Fleet"]

NAMESPACE = "alto"


class Fleet:
    """The executors of one run."""

    def __init__(self, place: Path, patience: Patience) -> None:
        """Of the run in the folder `place`."""
        self._place = place.resolve()
        self._patience = patience
        digest = blake2b(str(self._place).encode(), digest_size=8).hexdigest()
        self._run = f"alto/{digest}"

    @property
    def max_losses(self) -> int:
        return self._patience.max_losses

    def start(
        self, task: TaskId, number: int, start: Start, shares: tuple[Share, ...]
    ) -> RemoteExecutor:
        """Executor `number` of the task on these shares of nodes; on the first one it is led."""
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        name = self._name(task, number)
        bundles = [dict(share.resources) for share in shares]
        group = placement_group(
            bundles,
            strategy="PACK",
            name=name,
            lifetime="detached",
            bundle_label_selector=[{"ray.io/node-id": share.node} for share in shares],
        )
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        as_actor: Any = ray.remote  # its types do not know of concurrency groups
        actor_class = as_actor(concurrency_groups=LISTENERS)(Worker)
        actor = actor_class.options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=bundles[0].get("CPU", 0),
            num_gpus=bundles[0].get("GPU", 0),
            max_restarts=0,
            scheduling_strategy=strategy,
        ).remote(
            partial(_start, start, self._place),
            _give_up,
            self._patience.hold,
            self._patience.orphan,
        )
        places = frozenset(share.node for share in shares)
        return RemoteExecutor(name, actor, group, places, self._patience)

    def attach(self, task: TaskId, number: int) -> tuple[RemoteExecutor, Mapping[str, int]] | None:
        """The task's executor `number`, if it is still there, and how many devices of which nodes
        it holds."""
        import ray
        from ray.util.placement_group import get_placement_group, placement_group_table

        name = self._name(task, number)
        try:
            actor = ray.get_actor(name, NAMESPACE)
            group = get_placement_group(name)
        except ValueError:  # there is none of that name
            return None
        table: Mapping[str, Any] = placement_group_table(group)
        held = {
            node: max(1, int(table["bundles"][index].get("GPU", 1)))
            for index, node in table["bundles_to_node_id"].items()
        }
        return RemoteExecutor(name, actor, group, frozenset(held), self._patience), held

    def sweep(self, kept: Collection[tuple[TaskId, int]]) -> None:
        """End what earlier heads of this run have left, but for those kept."""
        import ray
        from ray.util.placement_group import (
            get_placement_group,
            placement_group_table,
            remove_placement_group,
        )

        names = {self._name(task, number) for task, number in kept}

        def is_left(name: str) -> bool:
            return name.startswith(f"{self._run}/") and name not in names

        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == NAMESPACE and is_left(actor["name"]):
                ray.kill(ray.get_actor(actor["name"], NAMESPACE), no_restart=True)
        for group in placement_group_table().values():
            if group["state"] != "REMOVED" and is_left(group["name"]):
                remove_placement_group(get_placement_group(group["name"]))

    def _name(self, task: TaskId, number: int) -> str:
        return f"{self._run}/{task}/{number}"


def _start(start: Start, place: Path) -> StartedExecutor:
    """In the executor's process."""
    if not place.is_dir():
        raise UserError(
            f"{place}: is not seen from every node of the cluster, expected a folder on a disk "
            "that all share"
        )
    return start()


def _give_up() -> None:
    """In the executor's process: give its GPUs back, which ends the process."""
    from ray.util.placement_group import get_current_placement_group, remove_placement_group

    remove_placement_group(get_current_placement_group())
