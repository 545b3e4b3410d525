"""Executors as actors of a Ray cluster.

The head leads a run: its roster has the executors, its fleet brings them up, and `remote` is its
end of one. An executor lives in quarters, a placement group, with a berth on each device: an actor
that holds it and a process. Processes are forked by a zygote, which has imported all that training
needs; on each node a nursery, an actor too, keeps one. A process is told its duty once; its worker
is the executor's end. What runs on the nodes is in `node`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alto_exec.ray_cluster.connection import RayCluster, connected

__all__ = ["RayCluster", "connected"]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: what begins before torch is imported is in here as well."""
    if name in __all__:
        from alto_exec.ray_cluster import connection

        return getattr(connection, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
