"""Executors as actors of a Ray cluster."""

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
