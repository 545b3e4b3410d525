"""Where an executor lives: devices, of one node if they can be, with an actor on each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from alto_exec.parallel.meeting import stored_meeting
from alto_exec.ray_cluster.devices import Share, address_of
from alto_exec.ray_cluster.node.berth import MEETING, Berth
from alto_exec.ray_cluster.nurseries import actor_of
from alto_runs.files.artifacts import StoredArtifact
from alto_runs.files.directory import RunDirectory

__all__ = ["NAMESPACE", "Quarters", "find_quarters", "make_quarters"]

NAMESPACE = "alto"


@dataclass(frozen=True, slots=True)
class Quarters:
    """A placement group and its berths, of which the first one leads. All outlive the head."""

    name: str
    share: Share
    group: Any
    berths: tuple[Any, ...]

    def house(
        self, nurseries: Sequence[Any], tenant: str, duty: bytes, directory: RunDirectory
    ) -> None:
        """Have a process on each device, from the nursery of its node; those before have ended
        then. Those of several nodes meet in the run's folder, which all see, or by its store."""
        import ray

        nodes = self.share.nodes
        meeting = self._meeting(directory) if len(nodes) > 1 else {}
        devices = [berth.device.remote() for berth in self.berths]
        duty_of_all = ray.put(duty)
        for rank, (berth, nursery) in enumerate(zip(self.berths, nurseries, strict=True)):
            seen = [d for d, node in zip(devices, nodes, strict=True) if node == nodes[rank]]
            house = berth.house.options(concurrency_group="orders")
            house.remote(nursery, tenant, duty_of_all, meeting, _launched(self.share, rank), *seen)

    def _meeting(self, directory: RunDirectory) -> Any:
        nodes, place = self.share.nodes, directory.absolute().meetings
        if len(set(nodes)) == 1:
            return self.berths[0].meeting.remote(None)
        if isinstance(place, StoredArtifact):
            file = place / uuid4().hex
            return {MEETING: stored_meeting(address_of(nodes[0]), file)}
        return self.berths[0].meeting.remote(str(place))

    def order(self, message: str) -> None:
        self.berths[0].order.options(concurrency_group="orders").remote(message)

    def listen(self, tenant: str, message: str) -> Any:
        """Resolves to what the leading process answers, or to nothing when that has ended."""
        return self.berths[0].listen.options(concurrency_group="listeners").remote(tenant, message)

    def clear(self) -> None:
        """Have all processes ended, and keep the devices."""
        for berth in self.berths:
            berth.end.options(concurrency_group="orders").remote()

    def are_there(self) -> bool:
        """Whether the devices are held, and not still another's."""
        return bool(self.group.wait(timeout_seconds=0))

    def close(self) -> None:
        """Give the devices back to the cluster, whatever becomes of the processes."""
        import ray
        from ray.util.placement_group import remove_placement_group

        for berth in self.berths:
            ray.kill(berth, no_restart=True)
        remove_placement_group(self.group)


def make_quarters(
    name: str, share: Share, orphan_seconds: float, vacant_seconds: float
) -> Quarters:
    """They are there as soon as the devices are free."""
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group(
        [{share.device: 1.0}] * len(share.nodes),
        strategy="STRICT_PACK" if len(set(share.nodes)) == 1 else "PACK",
        name=name,
        lifetime="detached",
        bundle_label_selector=[{"ray.io/node-id": node} for node in share.nodes],
    )
    actor_class = actor_of(Berth, orders=1, listeners=1)
    berths = tuple(
        actor_class.options(
            name=_name_of(name, rank),
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=float(share.device == "CPU"),
            num_gpus=float(share.device == "GPU"),
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
        ).remote(orphan_seconds, vacant_seconds)
        for rank in range(len(share.nodes))
    )
    return Quarters(name, share, group, berths)


def find_quarters(name: str) -> Quarters | None:
    """Those that an earlier head has made, if all of them is still there."""
    import ray
    from ray.util.placement_group import get_placement_group, placement_group_table

    try:
        group = get_placement_group(name)
        bundles: Sequence[dict[str, float]] = group.bundle_specs
        names = [_name_of(name, rank) for rank in range(len(bundles))]
        berths = tuple(ray.get_actor(each, NAMESPACE) for each in names)
    except ValueError:  # there is none of that name
        return None
    of_bundle: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
    nodes = tuple(of_bundle.get(number, "") for number in range(len(bundles)))
    if not all(nodes):  # it waits for its devices
        return None
    (device,) = bundles[0]
    return Quarters(name, Share(nodes, device), group, berths)


def _launched(share: Share, rank: int) -> dict[str, str]:
    """What torchrun tells a process. Each sees the devices of all on its node, which so read one
    another."""
    number, count = share.place(rank)
    size = len(share.nodes)
    known = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": count}
    return {name: str(value) for name, value in known.items()}


def _name_of(name: str, rank: int) -> str:
    return f"{name}#{rank}"
