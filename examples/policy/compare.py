"""Runs the policy of `widest_first.py` on a trace, beside one that is built in.

    python examples/policy/compare.py [TRACE] [GPUS]

The default is the testbed trace of Muri (traces/muri/cluster_trace.csv.gz) on 64 GPUs.
"""

import sys
from pathlib import Path

from widest_first import WidestFirst

from alto_policy.cluster import Cluster
from alto_policy.controller import Controller, run
from alto_policy.estimates import declared_seconds
from alto_policy.policies import build
from alto_policy.policies.sjf import SjfSettings
from alto_policy.view import Policy
from alto_runs.history import Follower
from alto_runs.metrics import Metrics, measure
from alto_sim.backend import SimBackend
from alto_sim.hardware import gpus_of
from alto_sim.load import load_workload

TRACE = Path(__file__).parents[2] / "traces" / "muri" / "cluster_trace.csv.gz"


def simulate(policy: Policy, trace: Path, num_gpus: int) -> Metrics:
    gpus = gpus_of(num_gpus)
    cluster = Cluster(gpus)
    follower = Follower(cluster)
    run(
        Controller(policy, cluster, follower.observe),
        SimBackend(load_workload(trace).workload, gpus),
    )
    return measure(follower.history())


def main() -> None:
    trace = Path(sys.argv[1]) if len(sys.argv) > 1 else TRACE
    num_gpus = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    policies = {
        "widest first": WidestFirst(declared_seconds),
        "sjf": build(SjfSettings()),
    }
    for name, policy in policies.items():
        found = simulate(policy, trace, num_gpus)
        makespan = found.overall.makespan_seconds / 3600
        completion = (found.schedule.completion_mean or 0.0) / 3600
        print(f"{name:14} makespan {makespan:8.1f} h   mean completion {completion:7.2f} h")


if __name__ == "__main__":
    main()
