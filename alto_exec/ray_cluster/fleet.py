"""Brings executors up on a Ray cluster, and finds those that an earlier head has left.

All that it makes on the cluster bears a name that begins with that of the run.
"""

import time
from collections.abc import Collection
from hashlib import blake2b
from typing import Any
from uuid import uuid4

from alto_exec.jobs.claims import claimant
from alto_exec.ray_cluster.devices import Node, Share
from alto_exec.ray_cluster.node.duty import Duty
from alto_exec.ray_cluster.nurseries import Nurseries
from alto_exec.ray_cluster.quarters import NAMESPACE, Quarters, find_quarters, make_quarters
from alto_exec.ray_cluster.remote import Patience, RemoteExecutor
from alto_exec.site import Start
from alto_policy.types import TaskId
from alto_runs.files.directory import RunDirectory

__all__ = ["Fleet"]

_VACANT_SECONDS = 10.0  # that devices are kept for the next task of this run
_HEADLESS_SECONDS = 15.0  # after which they go back by themselves, where no head is to do it
_KNOCK_SECONDS = 10.0  # for a berth to tell whose it is


class Fleet:
    """The executors of one run, and their quarters: the next executor moves in where one has
    moved out."""

    def __init__(self, directory: RunDirectory, patience: Patience, nurseries: Nurseries) -> None:
        """Of the run there. Where a store has its artifacts, heads of other nodes know it too: but
        not what was begun before the log was recovered from its copy, which may have lacked what
        that had told."""
        self._directory = directory
        self._patience = patience
        self._nurseries = nurseries
        place = directory.stored_at or str(directory.path.resolve())
        digest = blake2b(place.encode(), digest_size=8).hexdigest()
        self._run = f"alto/{digest}/"
        self._own = self._run + (f"{claimant(directory)}/" if directory.stored_at else "")
        self._left: dict[str, Quarters] | None = None  # by an earlier head, by tenant
        self._vacant: dict[str, tuple[Quarters, float]] = {}  # by name; since when

    @property
    def max_losses(self) -> int:
        return self._patience.max_losses

    def start(self, task: TaskId, number: int, start: Start, share: Share) -> RemoteExecutor:
        """Executor `number` of the task on these devices."""
        import ray

        quarters = self._vacant_for(share)
        if quarters is None:
            name = f"{self._own}{uuid4().hex}"
            quarters = make_quarters(name, share, self._patience.orphan, _HEADLESS_SECONDS)
        duty = Duty(start, self._patience.hold, self._patience.answer)
        tenant = _tenant(task, number)
        nurseries = [self._nurseries.of(node) for node in share.nodes]
        quarters.house(nurseries, tenant, ray.cloudpickle.dumps(duty), self._directory)
        return RemoteExecutor(tenant, quarters, self._patience)

    def vacate(self, quarters: Quarters) -> None:
        """Nobody trains there any more. They are sound, and kept for a while."""
        self._vacant[quarters.name] = quarters, time.monotonic()

    def tend(self, found: Collection[Node]) -> None:
        """Be ready to start executors on these nodes, and keep nothing that is not used."""
        self._nurseries.tend(found)
        living = {node.id for node in found}
        for quarters, since in tuple(self._vacant.values()):
            is_late = time.monotonic() - since > _VACANT_SECONDS
            if is_late or not living.issuperset(quarters.share.nodes):
                self._close(quarters)

    def ping(self, node: str) -> Any:
        """Resolves when the node answers."""
        return self._nurseries.ping(node)

    def attach(self, task: TaskId, number: int) -> RemoteExecutor | None:
        """The task's executor `number` as an earlier head has left it; None if it is gone."""
        if self._left is None:
            self._left = self._find_left()
        tenant = _tenant(task, number)
        if (quarters := self._left.pop(tenant, None)) is None:
            return None
        return RemoteExecutor(tenant, quarters, self._patience)

    def sweep(self, kept: Collection[str]) -> None:
        """End what earlier heads of this run have left, but for quarters with the names kept."""
        import ray
        from ray.util.placement_group import (
            get_placement_group,
            placement_group_table,
            remove_placement_group,
        )

        def is_left(name: str) -> bool:
            return name.startswith(self._run) and name.partition("#")[0] not in kept

        for name in self._names_of_actors():
            if is_left(name):
                ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
        for group in placement_group_table().values():
            if group["state"] != "REMOVED" and is_left(group["name"]):
                remove_placement_group(get_placement_group(group["name"]))

    def close(self) -> None:
        """Give back what is vacant."""
        for quarters, _ in tuple(self._vacant.values()):
            self._close(quarters)

    def _vacant_for(self, share: Share) -> Quarters | None:
        """Others that are vacant on its nodes make room."""
        own = set(share.nodes)
        on_node = [one for one, _ in self._vacant.values() if not own.isdisjoint(one.share.nodes)]
        for quarters in on_node:
            if quarters.share == share:
                del self._vacant[quarters.name]
                return quarters
        for quarters in on_node:
            self._close(quarters)
        return None

    def _close(self, quarters: Quarters) -> None:
        del self._vacant[quarters.name]
        quarters.close()

    def _find_left(self) -> dict[str, Quarters]:
        import ray
        from ray.exceptions import RayError

        left: dict[str, Quarters] = {}
        for name in {name.partition("#")[0] for name in self._names_of_actors()}:
            if not name.startswith(self._own):
                continue  # it knows more than the log, which was recovered
            if (quarters := find_quarters(name)) is not None:
                try:
                    tenant = ray.get(quarters.berths[0].tenant.remote(), timeout=_KNOCK_SECONDS)
                except RayError:  # it is dead, or hangs
                    continue
                left[tenant] = quarters
        return left

    def _names_of_actors(self) -> list[str]:
        import ray

        named = ray.util.list_named_actors(all_namespaces=True)
        of_alto = [each["name"] for each in named if each["namespace"] == NAMESPACE]
        return sorted(name for name in of_alto if name.startswith(self._run))


def _tenant(task: TaskId, number: int) -> str:
    return f"{task}/{number}"
