"""Mean waits of simulated queues, against the formulas of queueing theory."""

import math
import random
from collections.abc import Callable
from statistics import fmean, stdev

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import TaskArrived
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry
from alto_policy.types import JobId
from alto_sim.machines.hardware import gpus_of
from alto_sim.simulate import play
from alto_sim.workloads.rigid import AT_ONCE
from alto_sim.workloads.workload import Workload
from tests.sim.cases import Flat, job, task

NUM_JOBS = 2_000
WARM_UP = 200
RUNS = 8  # independent, for the confidence bound
STUDENT_T = 4.785  # 99.8 % of Student's t with 7 degrees of freedom lie within


def mean_wait(
    dice: random.Random, servers: int, rate: float, service: Callable[[random.Random], float]
) -> float:
    now, arrivals, durations = 0.0, [], {}
    for number in range(NUM_JOBS):
        now += dice.expovariate(rate)
        arrivals.append(TaskArrived(now, task(f"{number}", [job(f"{number}", 1, 1)])))
        durations[JobId(f"{number}")] = service(dice)
    waits: list[float] = []
    came: dict[str, float] = {}

    def record(entry: Entry) -> None:
        if isinstance(entry.event, TaskArrived):
            came[entry.event.task.id] = entry.event.t
        for decision in entry.decisions:
            if isinstance(decision, StartExecutor):
                waits.append(entry.event.t - came[decision.task])

    workload = Workload(
        arrivals=tuple(arrivals), curves=Flat(), latencies=AT_ONCE, durations=durations
    )
    play(workload, FifoSettings(), gpus_of(servers), record)
    return fmean(waits[WARM_UP:])


def exponential(dice: random.Random) -> float:
    return dice.expovariate(1.0)


def two_sizes(dice: random.Random) -> float:
    """Mean 1, second moment 1.81."""
    return 0.1 if dice.random() < 0.5 else 1.9


def wait_of_mmc(servers: int, rate: float) -> float:
    """Erlang C, at a service rate of 1."""
    load = rate / servers
    tail = rate**servers / math.factorial(servers) / (1 - load)
    queued = tail / (sum(rate**k / math.factorial(k) for k in range(servers)) + tail)
    return queued / (servers - rate)


@pytest.mark.parametrize(
    ("servers", "rate", "service", "expected"),
    [
        pytest.param(1, 0.5, exponential, 0.5 / (1 - 0.5), id="M/M/1"),
        pytest.param(4, 2.8, exponential, wait_of_mmc(4, 2.8), id="M/M/4"),
        pytest.param(1, 0.5, two_sizes, 0.5 * 1.81 / 2 / (1 - 0.5), id="M/G/1"),
    ],
)
def test_the_mean_wait_is_that_of_the_formula(
    servers: int, rate: float, service: Callable[[random.Random], float], expected: float
) -> None:
    means = [mean_wait(random.Random(seed), servers, rate, service) for seed in range(RUNS)]
    bound = STUDENT_T * stdev(means) / math.sqrt(RUNS)
    assert bound < 0.35 * expected  # else nothing is shown
    assert fmean(means) == pytest.approx(expected, abs=bound)
