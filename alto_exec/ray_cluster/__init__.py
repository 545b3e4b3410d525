"""Executors as actors of a Ray cluster."""

from alto_exec.ray_cluster.connection import RayCluster, connected

__all__ = ["RayCluster", "connected"]
