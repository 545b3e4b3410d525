"""This machine as a Ray cluster of its own, for one run.

Ray's own processes take from the cores that train, and lend their ports to whoever reaches them.
"""

import os
from typing import Any

from alto_exec.ray_cluster.quarters import NAMESPACE

__all__ = ["JOINING", "begin", "end"]

JOINING: dict[str, Any] = {  # whatever the cluster
    "namespace": NAMESPACE,
    "log_to_driver": False,
    "logging_level": "ERROR",
}
_STORE_BYTES = 256 * 2**20  # of shared memory, for the tasks' samples on their way to executors
_SYSTEM = {
    "worker_niceness": 0,  # Ray's 15 puts executors behind whatever else runs on this machine
    "memory_monitor_refresh_ms": 0,  # it ends berths where memory is short, and not who takes it
    # What nobody looks at here, and processes for tasks that nobody asks for.
    "prestart_worker_first_driver": False,
    "enable_metrics_collection": False,
    "event_stats": False,
    "task_events_report_interval_ms": 0,
    "debug_dump_period_milliseconds": 0,
    "raylet_check_gc_period_milliseconds": 10_000,
    "kill_idle_workers_interval_ms": 10_000,
    "object_manager_timer_freq_ms": 1_000,
}


def begin() -> None:
    """Make it, and connect this process. Raises OSError and ValueError as Ray does."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray._private import ray_constants, worker

    # Ray takes an address that others reach in place of a loopback one, unless it is for systems on
    # which it makes no clusters of several machines.
    for_several, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _system_config=_SYSTEM,
            **JOINING,
        )
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = for_several
    node: Any = worker._global_node
    node.kill_log_monitor(check_alive=False)  # it looks for lines ten times a second


def end() -> None:
    """Nobody trains any more: Ray would wait a second for each of its processes to say so."""
    from ray._private import worker

    node: Any = worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)
