"""A task that nobody wants any more: its jobs stop, its GPUs go to others, wherever it stood."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.controller import Controller, replay, run
from alto_policy.decisions import ExitReason, Pause, StartExecutor, Stop, StopExecutor
from alto_policy.events import (
    Departure,
    ExecutorDown,
    ExecutorUp,
    TaskArrived,
    TaskCancelled,
    TimerFired,
)
from alto_policy.ledger.cluster import Cluster, ImpossibleEventError, Status
from alto_policy.policies import SETTINGS, build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.exclusive import ExclusiveSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.las import LasSettings
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, JobId, TaskId
from tests.policy.cases import UP, Ledger, ToyBackend, gpus, job, left, memory, report, task

T = TaskId("t")
CANCEL = TaskCancelled(5.0, T)


def stop(name: str) -> Stop:
    return Stop(JobId(name), ExitReason.CANCELLED)


def test_jobs_that_train_are_stopped_and_the_executor_after_the_last() -> None:
    ledger = Ledger(FifoSettings(), [job("a"), job("b"), job("c", batch_size=99)])
    ledger.tell(UP)
    assert ledger.tell(CANCEL) == (stop("c"), stop("a"), stop("b"))
    assert ledger.tell(left("a", Departure.STOPPED)) == ()
    assert ledger.tell(left("b", Departure.FINISHED)) == (StopExecutor(T),)
    assert ledger.tell(ExecutorDown(9.0, T)) == ()


def test_one_that_waits_is_forgotten() -> None:
    controller = Controller(build(FifoSettings()), Cluster(gpus(1)))
    controller.handle(TaskArrived(0.0, task("u", [job("x")])))
    controller.handle(TaskArrived(0.0, task("t", [job("a")])))
    assert controller.handle(CANCEL) == (stop("a"),)
    controller.handle(ExecutorUp(6.0, TaskId("u"), memory(9)))
    controller.handle(left("x", Departure.FINISHED))
    assert controller.handle(ExecutorDown(9.0, TaskId("u"))) == ()


def test_an_executor_that_comes_up_is_not_waited_for() -> None:
    ledger = Ledger(FifoSettings(), [job("a")])
    assert ledger.tell(CANCEL) == (stop("a"), StopExecutor(T))
    assert ledger.tell(UP) == ()
    assert ledger.tell(ExecutorDown(9.0, T)) == ()


def test_those_that_waited_behind_it_start_at_once() -> None:
    """A wide task held up a narrow one, for which there was room."""
    controller = Controller(build(ExclusiveSettings()), Cluster(gpus(2)))
    controller.handle(TaskArrived(0.0, task("u", [job("x")])))
    controller.handle(TaskArrived(0.0, task("t", [job("a")], 2)))
    assert controller.handle(TaskArrived(0.0, task("v", [job("y")]))) == ()
    assert controller.handle(CANCEL) == (stop("a"), StartExecutor(TaskId("v"), (GpuId(1),)))


def test_a_second_time_or_after_the_end_is_no_news() -> None:
    ledger = Ledger(FifoSettings(), [job("a", steps=1, reports=1)])
    ledger.tell(UP)
    ledger.tell(CANCEL)
    assert ledger.tell(CANCEL) == ()
    ledger.tell(left("a", Departure.STOPPED))
    assert ledger.tell(CANCEL) == ()


def test_a_task_that_nobody_knows_cannot_be_cancelled() -> None:
    with pytest.raises(ImpossibleEventError, match="TaskCancelled: task u is unknown"):
        Ledger(FifoSettings(), [job("a")]).tell(TaskCancelled(5.0, TaskId("u")))


def test_after_a_crash_it_does_not_come_back() -> None:
    ledger = Ledger(FifoSettings(), [job("a"), job("b")])
    ledger.tell(UP, CANCEL)
    assert ledger.tell(ExecutorDown(9.0, T)) == ()


def test_what_nobody_wants_does_not_wait_even_if_its_jobs_were_not_stopped() -> None:
    cluster = Cluster(gpus(1))
    cluster.apply(TaskArrived(0.0, task("t", [job("a")])))
    cluster.commit(StartExecutor(T, (GpuId(0),)))
    assert cluster.apply(CANCEL)
    assert not cluster.apply(CANCEL)
    cluster.apply(ExecutorDown(9.0, T))
    assert not cluster.is_waiting(T)


def test_a_paused_one_takes_no_part_in_a_selection() -> None:
    ledger = Ledger(AltoSettings(warmup=0.5), [job("a", steps=2, reports=2), job("b")])
    ledger.tell(UP)
    assert ledger.tell(report("a", 1, 1.0)) == (Pause(JobId("a")),)
    ledger.tell(left("a", Departure.PAUSED))
    assert ledger.tell(CANCEL) == (stop("a"), stop("b"))
    assert ledger.tell(left("b", Departure.STOPPED)) == (StopExecutor(T),)


def test_a_preemptive_policy_gives_its_gpus_away_once_they_are_free() -> None:
    controller = Controller(build(LasSettings(round_seconds=10.0)), Cluster(gpus(1)))
    controller.handle(TaskArrived(0.0, task("t", [job("a")])))
    controller.handle(ExecutorUp(1.0, T, memory(9)))
    controller.handle(TaskArrived(2.0, task("u", [job("x")])))
    assert controller.handle(CANCEL) == (stop("a"),)
    assert controller.handle(TimerFired(12.0))[:1] != (Pause(JobId("a")),)
    assert controller.handle(left("a", Departure.STOPPED)) == (StopExecutor(T),)
    started = controller.handle(ExecutorDown(13.0, T))
    assert StartExecutor(TaskId("u"), (GpuId(0),)) in started


TASKS = [
    task(name, [job(f"{name}{i}", batch_size=1 + i % 3, reports=10) for i in range(4)], width)
    for name, width in (("t", 1), ("u", 2), ("v", 1))
]


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    crashes=st.integers(0, 2),
    unwanted=st.lists(st.sampled_from("tuv"), unique=True),
)
def test_whenever_it_comes_no_policy_is_lost(
    name: str, seed: int, crashes: int, unwanted: list[str]
) -> None:
    cluster, entries = Cluster(gpus(2)), list[Entry]()
    backend = ToyBackend(
        TASKS,
        lambda job, step: 3.0 / (1 + step),
        4,
        random.Random(seed),
        crashes,
        [TaskId(each) for each in unwanted],
    )
    run(Controller(build(SETTINGS[name]()), cluster, entries.append), backend)
    assert all(cluster.status(job.id) is Status.ENDED for task in TASKS for job in task.jobs)
    assert len(cluster.free_gpus()) == 2
    assert replay(entries, Controller(build(SETTINGS[name]()), Cluster(gpus(2)))) is None
