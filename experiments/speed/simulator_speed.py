"""How fast the simulator and its decisions are, beside what others publish of theirs.

    python experiments/speed/simulator_speed.py [--only philly|growth|tuning|latency|placement]

CPU seconds, so that other work on the machine disturbs little; peers as published or as measured
on a machine of this kind, a single run each (jobs of clusters' traces in a CPU second).
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from alto_policy.controller import Controller, run
from alto_policy.decisions import Decision
from alto_policy.events import Event, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.planner import Planner, Remaining
from alto_policy.placement.plans import Item, Pool, bound, improve, makespan
from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.runlog import Entry, RunLog
from alto_policy.types import Gpu, TaskId
from alto_policy.view import ClusterView, Policy
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.kinds import KindDurations
from alto_runs.cpsat import CpSat
from alto_runs.garbage import uncollected
from alto_sim.cluster.backend import SimBackend
from alto_sim.importers import read_trace
from alto_sim.machines.hardware import gpus_of
from alto_sim.machines.nodes import Nodes
from alto_sim.workloads.from_logs import synthetic
from alto_sim.workloads.generator import PAPER_MIX, Poisson, generate
from alto_sim.workloads.placed import placed
from alto_sim.workloads.rigid import AT_ONCE, rigid
from alto_sim.workloads.workload import Workload

PHILLY = Path("traces/philly/philly_82k.csv.gz")
PEERS = (
    ("Tiresias, 60 jobs", "150-230 jobs/s"),
    ("Muri, SRTF of 1,494 jobs; its own policy, 992 jobs", "340; 17 jobs/s"),
    ("Gavel, FIFO; max-min, 500 jobs on 108 GPUs", "21; 15 jobs/s"),
    ("Pollux' simulator, Tiresias; Pollux, 160 jobs", "7.6; below 0.08 jobs/s"),
    ("Sia, Gavel; Sia, 160 jobs", "2.5; 0.34 jobs/s"),
    ("Blox, LAS, 1,010 jobs", "35 jobs/s"),
    ("Lucid and Helios, SJF, 6,610 jobs", "62 jobs/s"),
    ("Syne Tune, ASHA, 1,000; 5,000 trials", "740; 472 trials/s"),
)
_JOBS = 82_247
_WAITING = 1_000
_NODES = 250_000  # of a search: what a second allows
_SOLVER_SECONDS = 1.0  # of CP-SAT's own count; 5 find nothing better either
_AT_BOUND = 1.001
_PLANNING = 1e-3  # seconds: where slow GPUs stay free, others find them and do nothing
_KINDS = """\
nodes:
  - { count: 3, gpu: H100, gpus: 8 }
  - { count: 3, gpu: A100-80GB, gpus: 8 }
  - { count: 2, gpu: L40S, gpus: 8 }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    print("| what | measured | bar |\n|---|---|---|")
    for name, part in PARTS.items():
        if only in (None, name):
            for what, found, bar in part():
                print(f"| {what} | {found} | {bar} |", flush=True)
    for peer, found in PEERS:
        print(f"| {peer} | {found} | |")


def philly() -> Iterator[tuple[str, str, str]]:
    """The command that a user would type, log and results written."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "alto_cli", "simulate", str(PHILLY), "--policy", "sjf"]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        options = ["--gpus", "400", "--out", f"{folder}/run"]
        subprocess.run([*command, *options], check=True, capture_output=True)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    yield (
        "Philly, 82,247 jobs, 400 GPUs, sjf with backfill, log and results written",
        f"{cpu:.1f} CPU s ({wall:.1f} s of wall time), {_JOBS / cpu:,.0f} jobs/s, "
        f"{after.ru_maxrss / 1024:.0f} MB",
        "10 s, 250 MB",
    )


def growth() -> Iterator[tuple[str, str, str]]:
    trace = read_trace(PHILLY)
    rates = []
    for count in (_JOBS // 10, _JOBS):
        workload = rigid(replace(trace, jobs=trace.jobs[:count]), AT_ONCE)
        seconds, events = _played(workload, build(SjfSettings()), gpus_of(400))
        rates.append(events / seconds)
    yield (
        "events a second at ten times the jobs, over those of a tenth",
        f"{rates[1] / rates[0]:.0%} ({rates[0]:,.0f} and {rates[1]:,.0f})",
        "80 %",
    )


def tuning() -> Iterator[tuple[str, str, str]]:
    workload, gpus = _tuning(_WAITING), gpus_of(256)
    plans = Planner(_belief(workload))
    for name, policy in (
        ("alto, tasks as they come", build(AltoSettings())),
        ("alto with placement", build(AltoSettings(), plans)),
    ):
        seconds, events = _played(workload, policy, gpus)
        jobs = sum(len(arrival.task.jobs) for arrival in workload.arrivals)
        yield (
            f"1,000 tasks, {jobs:,} jobs, at once on 256 GPUs, {name}",
            f"{seconds:.1f} CPU s, {jobs / seconds:,.0f} jobs/s, {events:,} events",
            "60 s",
        )


def latency() -> Iterator[tuple[str, str, str]]:
    """Of the events at which the placement is planned, while at least 1,000 tasks wait."""
    workload = _tuning(_WAITING + 200)
    yield from _latencies("64 GPUs", workload, gpus_of(64), _belief(workload))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "nodes.yaml")
        path.write_text(_KINDS, encoding="utf-8")
        nodes = Nodes(path)
        workload = placed(workload, nodes).workload
    assert workload.mixture is not None
    durations = KindDurations(
        workload.mixture,
        lambda costs: TaskDurations(costs, costs.memory_model, start_seconds=30.0),
    )
    yield from _latencies("64 GPUs of three kinds", workload, nodes.gpus, durations)


def _latencies(
    where: str, workload: Workload, gpus: tuple[Gpu, ...], believed: Remaining
) -> Iterator[tuple[str, str, str]]:
    policy = _Timed(build(AltoSettings(), Planner(believed)))
    backend, controller = SimBackend(workload, gpus), Controller(policy, Cluster(gpus))
    with uncollected():
        while (event := backend.next_event()) is not None and not policy.is_done:
            for decision in controller.handle(event):
                backend.execute(decision)
    planning = [seconds for seconds in policy.planning if seconds > _PLANNING]
    for what, seconds in (("all events", policy.seconds), ("those that plan", planning)):
        middle, high, most = np.percentile(np.array(seconds) * 1e3, [50, 99, 100])
        yield (
            f"a decision with 1,000 tasks waiting, {where}, {what} ({len(seconds):,})",
            f"median {middle:.2f}, p99 {high:.2f}, most {most:.2f} ms",
            "p99 20 ms",
        )


def placement() -> Iterator[tuple[str, str, str]]:
    """Over the bound where a plan is there, else over what CP-SAT makes of that plan."""
    over, seconds = [], []
    solver = CpSat(limit=_SOLVER_SECONDS)
    for count, gpus, seed in product((20, 50, 100, 200), (8, 16, 64), range(3)):
        items, pool = _items(count, random.Random(seed), gpus), Pool(gpus)
        begun = time.thread_time()
        found = improve(items, pool, nodes=_NODES)
        seconds.append(time.thread_time() - begun)
        best = bound(items, pool)
        if found.cost > _AT_BOUND * best:
            best = makespan(solver(items, pool, found.order), items, pool)
        over.append(found.cost / best)
    yield (
        f"{len(over)} placements of 20 to 200 tasks on 8 to 64 GPUs, makespan over the best of "
        "CP-SAT and the area bound",
        f"mean {np.mean(over):.4f}, worst {max(over):.4f}, {max(seconds):.2f} CPU s at most",
        "1.01 at 1 s",
    )


def _items(count: int, dice: random.Random, gpus: int) -> list[Item]:
    """Durations over two decades; a third of the tasks takes 2 to 8 GPUs, some of them an odd
    number."""
    widths = [width for width in (1, 1, 1, 1, 2, 3, 4, 6, 8) if width <= gpus]
    return [
        Item(TaskId(f"{number}"), dice.choice(widths), dice.lognormvariate(8.0, 1.0))
        for number in range(count)
    ]


class _Timed:
    """Times another policy; tasks that start tell that it has planned."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds: list[float] = []
        self.planning: list[float] = []
        self.is_done = False

    def observe(self, event: Event, cluster: ClusterView) -> tuple[Decision, ...]:
        waiting = len(cluster.waiting())
        may_plan = bool(cluster.free_gpus())
        begun = time.thread_time()
        decisions = self._policy.observe(event, cluster)
        seconds = time.thread_time() - begun
        if waiting >= _WAITING:
            self.seconds.append(seconds)
            if may_plan and not isinstance(event, TaskArrived):
                self.planning.append(seconds)
        elif self.planning:
            self.is_done = True
        return decisions


def _tuning(count: int) -> Workload:
    arrivals = generate(PAPER_MIX, Poisson(), count=count, gap_seconds=0.0, seed=0)
    return synthetic(RunLog(None, tuple(Entry(arrival, ()) for arrival in arrivals)))


def _belief(workload: Workload) -> TaskDurations:
    return TaskDurations(workload.step_time, workload.memory_of, start_seconds=30.0)


def _played(workload: Workload, policy: Policy, gpus: tuple[Gpu, ...]) -> tuple[float, int]:
    """CPU seconds and events of a run without a log."""
    count = 0

    def record(entry: Entry) -> None:
        nonlocal count
        count += 1

    begun = time.process_time()
    with uncollected():
        run(Controller(policy, Cluster(gpus), record), SimBackend(workload, gpus))
    return time.process_time() - begun, count


PARTS: dict[str, Callable[[], Iterator[tuple[str, str, str]]]] = {
    "philly": philly,
    "growth": growth,
    "tuning": tuning,
    "latency": latency,
    "placement": placement,
}

if __name__ == "__main__":
    main()
