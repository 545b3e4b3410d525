"""How many of many are kept."""

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import Launch
from alto_policy.events import Departure, ExecutorDown, ExecutorUp, LossReported, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from alto_policy.types import GpuId, JobId, TaskId
from tests.policy.cases import ToyBackend, gpus, job, job_decisions, left, memory, play, task


@pytest.mark.parametrize(
    ("num_jobs", "keep", "kept"),
    [
        pytest.param(100, 0.07, 7, id="0.07 * 100 is 7.000000000000001, and means 7"),
        pytest.param(100, 0.071, 8, id="a part of a job is a whole one"),
        pytest.param(10, 0.3, 3, id="0.3 * 10"),
    ],
)
def test_a_share_of_many_jobs(num_jobs: int, keep: float, kept: int) -> None:
    names = [f"j{number:03}" for number in range(num_jobs)]
    losses = {name: float(number) for number, name in enumerate(names)}
    jobs = [job(name, steps=4, reports=4) for name in names]
    backend = ToyBackend([task("t", jobs)], lambda spec, step: losses[spec.id], capacity=999)
    settings = AltoSettings(warmup=0.25, keep=keep)
    decided = job_decisions(play(build(settings), backend))
    survivors = [name for name in names if decided[name] == [(1, "pause")]]
    assert survivors == names[:kept]


def test_of_jobs_whose_executor_was_lost_the_cold_ones_go_on() -> None:
    """The new executor has room for one of them at a time; the warm one waits for the others."""
    jobs = [job(name, steps=4, reports=4) for name in ("warm", "next", "last")]
    controller = Controller(build(AltoSettings(warmup=0.25, keep=0.3)), Cluster(gpus()))
    t = TaskId("t")
    decided = [
        controller.handle(event)
        for event in (
            TaskArrived(0.0, task("t", jobs)),
            ExecutorUp(1.0, t, memory(3)),
            LossReported(2.0, JobId("warm"), 1, 1.0, 1.0),
            ExecutorDown(3.0, t),  # the order to pause never came
            ExecutorUp(4.0, t, memory(1)),
            LossReported(5.0, JobId("next"), 1, 2.0, 2.0),
            left("next", Departure.PAUSED),
        )
    ]
    assert decided[4] == (Launch(t, GpuId(0), (JobId("next"),)),)
    assert decided[6] == (Launch(t, GpuId(0), (JobId("last"),)),)
