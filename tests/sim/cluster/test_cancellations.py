"""A recorded cancellation happens again where the workload is simulated."""

import pytest

from alto_policy.events import TaskArrived, TaskCancelled
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, RunLog
from alto_policy.types import TaskId
from alto_sim.cluster.backend import SimBackend
from alto_sim.workloads.from_logs import recorded
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, SECOND, Flat, gpus, job, play, task, told

TASKS = [task("t", [job("a", 4, 1)]), task("u", [job("b", 4, 1)])]


def simulated(*cancellations: tuple[float, str]) -> list[tuple[float, str]]:
    workload = Workload(
        arrivals=tuple(TaskArrived(0.0, each) for each in TASKS),
        curves=Flat(),
        step_time=SECOND,
        latencies=NOW,
        memory=MEMORY,
        cancellations=tuple(TaskCancelled(t, TaskId(name)) for t, name in cancellations),
    )
    entries = play(build(FifoSettings()), SimBackend(workload, gpus()))
    news = [(entry.event.t, told(entry.event)) for entry in entries]
    return [(t, what) for t, what in news if "arrived" not in what]


def test_the_next_one_gets_the_gpu_at_once() -> None:
    assert simulated((2.0, "t")) == [
        (0.0, "t up"),
        (2.0, "t cancelled"),
        (2.0, "a stopped"),
        (2.0, "t down"),
        (2.0, "u up"),
        (6.0, "b@4"),
        (6.0, "b finished"),
        (6.0, "u down"),
    ]


def test_one_that_waits_never_starts() -> None:
    assert simulated((2.0, "u"))[1:] == [
        (2.0, "u cancelled"),
        (4.0, "a@4"),
        (4.0, "a finished"),
        (4.0, "t down"),
    ]


@pytest.mark.parametrize("late", [5.0, 99.0])
def test_after_the_end_there_is_nothing_to_cancel(late: float) -> None:
    assert simulated((late, "t")) == simulated()


def test_a_recorded_run_holds_them() -> None:
    cancelled = TaskCancelled(2.0, TaskId("t"))
    log = RunLog(None, (Entry(TaskArrived(0.0, TASKS[0]), ()), Entry(cancelled, ())))
    assert recorded(log).cancellations == (cancelled,)
