"""Whatever the order of events, a job's fate is its own."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.controller import Controller, replay, run
from alto_policy.ledger.cluster import Cluster, Status
from alto_policy.policies import SETTINGS, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry
from alto_policy.types import Job
from tests.policy.cases import ToyBackend, gpus, job, job_decisions, play, task

TASKS = [
    task(name, [job(f"{name}{i}", batch_size=1 + i % 3, reports=10) for i in range(6)])
    for name in "tu"
]


def curve(job: Job, step: int) -> float:
    """Better and worse jobs, one that breaks down and one that diverges."""
    number = int(job.id[1])
    if number == 2 and step > 6:
        return math.nan
    if number == 4:
        return 2.0 + 0.1 * step
    return 3.0 / (1 + step * (number + 1) / 40)


ALTO = AltoSettings(warmup=0.3, keep=0.5)
UNDISTURBED = job_decisions(play(build(ALTO), ToyBackend(TASKS, curve, 99), 2))


def test_the_case_has_every_kind_of_fate() -> None:
    last = {decisions[-1][1] for decisions in UNDISTURBED.values()}
    assert last == {"pause", "underperformed", "diverged", "non-finite loss"}


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32),
    capacity=st.integers(3, 12),
    num_gpus=st.integers(1, 2),
    crashes=st.integers(0, 3),
)
def test_alto_decides_the_same_for_each_job(
    seed: int, capacity: int, num_gpus: int, crashes: int
) -> None:
    backend = ToyBackend(TASKS, curve, capacity, random.Random(seed), crashes)
    assert job_decisions(play(build(ALTO), backend, num_gpus)) == UNDISTURBED


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), crashes=st.integers(0, 3))
def test_every_policy_ends_every_job_and_can_be_replayed(
    name: str, seed: int, crashes: int
) -> None:
    entries: list[Entry] = []
    cluster = Cluster(gpus(2))
    backend = ToyBackend(TASKS, curve, 4, random.Random(seed), crashes)
    run(Controller(build(SETTINGS[name]()), cluster, entries.append), backend)
    assert all(cluster.status(job.id) is Status.ENDED for task in TASKS for job in task.jobs)
    assert len(cluster.free_gpus()) == 2
    assert replay(entries, Controller(build(SETTINGS[name]()), Cluster(gpus(2)))) is None
