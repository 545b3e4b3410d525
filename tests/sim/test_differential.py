"""Rigid jobs against a second simulator that shares no line with the first."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import JobLeft
from alto_policy.policies import SETTINGS
from alto_policy.runlog import Entry
from alto_sim.hardware import gpus_of
from alto_sim.importers import AT_ONCE, read_trace, rigid
from alto_sim.simulate import play
from tests.sim.heap_simulator import HeapJob, jobs_of, schedule

TRACES = sorted(Path("traces").rglob("*.csv.gz"))
GPUS = {"philly": 400}  # where the widest job does not say

PRIORITIES: Mapping[str, Callable[[HeapJob], float]] = {
    "fifo": lambda job: 0.0,
    "sjf": lambda job: math.ceil(job.duration),  # users declare whole seconds
}


def simulated(path: Path, policy: str, num_gpus: int) -> dict[str, tuple[float, float]]:
    workload = rigid(read_trace(path), AT_ONCE)
    starts: dict[str, float] = {}
    times: dict[str, tuple[float, float]] = {}

    def record(entry: Entry) -> None:
        if isinstance(entry.event, JobLeft):
            times[entry.event.job] = starts[entry.event.job], entry.event.t
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                starts[decision.task] = entry.event.t

    play(workload, SETTINGS[policy](), gpus_of(num_gpus), record)
    return times


@pytest.mark.parametrize("policy", PRIORITIES)
@pytest.mark.parametrize("path", TRACES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_job_of_a_shipped_trace_starts_and_ends_to_the_second(
    path: Path, policy: str
) -> None:
    jobs = jobs_of(path)
    num_gpus = GPUS.get(path.parent.name, max(job.width for job in jobs))
    expected = schedule(jobs, num_gpus, PRIORITIES[policy])
    assert len(expected) == len(jobs)
    assert simulated(path, policy, num_gpus) == expected
