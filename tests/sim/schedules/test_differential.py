"""Rigid jobs against a second simulator that shares no line with the first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import JobLeft
from alto_policy.policies import SETTINGS
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId
from alto_sim.importers import Trace, read_trace
from alto_sim.machines.hardware import gpus_of
from alto_sim.simulate import play
from alto_sim.workloads.rigid import AT_ONCE, rigid
from tests.sim.schedules.heap_simulator import HeapJob, jobs_of, schedule
from tests.sim.schedules.kinds_simulator import KindOfGpu, schedule_on_kinds

TRACES = sorted(Path("traces").rglob("*.csv.gz"))
GPUS = {"philly": 400}  # where the widest job does not say
_FIRST = 300  # jobs of a trace on several kinds: the simulator for these takes its time

PRIORITIES: Mapping[str, Callable[[HeapJob], float]] = {
    "fifo": lambda job: 0.0,
    "sjf": lambda job: math.ceil(job.duration),  # users declare whole seconds
}


def simulated(
    trace: Trace, policy: str, gpus: tuple[Gpu, ...], speeds: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    workload = replace(rigid(trace, AT_ONCE), speeds=speeds)
    starts: dict[str, float] = {}
    times: dict[str, tuple[float, float]] = {}

    def record(entry: Entry) -> None:
        if isinstance(entry.event, JobLeft):
            times[entry.event.job] = starts[entry.event.job], entry.event.t
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                starts[decision.task] = entry.event.t

    play(workload, SETTINGS[policy](), gpus, record)
    return times


@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_job_of_a_shipped_trace_starts_and_ends_to_the_second(path: Path) -> None:
    """By a policy each; on GPUs of three kinds the first jobs of it. A trace is read once."""
    trace, jobs = read_trace(path), jobs_of(path)
    num_gpus = GPUS.get(path.parent.name, max(job.width for job in jobs))
    for policy, priority in PRIORITIES.items():
        expected = schedule(jobs, num_gpus, priority)
        assert len(expected) == len(jobs)
        assert simulated(trace, policy, gpus_of(num_gpus), {}) == expected
        check_on_three_kinds(trace, jobs, policy)


def check_on_three_kinds(trace: Trace, jobs: Sequence[HeapJob], policy: str) -> None:
    """The widest jobs are on all kinds together."""
    trace, jobs = replace(trace, jobs=trace.jobs[:_FIRST]), jobs[:_FIRST]
    widest = max(job.width for job in jobs)
    counts = {"slow": widest // 2 + 1, "fast": widest // 3 + 1, "slowest": widest // 4 + 1}
    speeds = {"slow": 0.5, "fast": 1.0, "slowest": 0.25}
    kinds = [KindOfGpu(count, speeds[name]) for name, count in counts.items()]
    expected = schedule_on_kinds(jobs, kinds, PRIORITIES[policy])
    assert len(expected) == len(jobs)
    names = [name for name, count in counts.items() for _ in range(count)]
    gpus = tuple(Gpu(id=GpuId(number), kind=name) for number, name in enumerate(names))
    assert simulated(trace, policy, gpus, speeds) == expected
