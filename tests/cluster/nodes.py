"""Ray clusters of one machine: several nodes, each with GPUs that Ray is only told of."""

import os
from typing import Any

__all__ = ["GPUS_OF_NODE", "add_node", "start_nodes", "stop_nodes"]

GPUS_OF_NODE = 2
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_NODE = {"object_store_memory": 80 * 2**20, "num_cpus": 0, "include_log_monitor": False}


def start_nodes(count: int = 2) -> Any:
    os.environ.update(_SETTINGS)
    from ray.cluster_utils import Cluster

    head = {**_NODE, "num_gpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(count):
        add_node(cluster)
    return cluster


def add_node(cluster: Any) -> Any:
    return cluster.add_node(**_NODE, num_gpus=GPUS_OF_NODE)


def stop_nodes(cluster: Any) -> None:
    import ray

    ray.shutdown()
    cluster.shutdown()
