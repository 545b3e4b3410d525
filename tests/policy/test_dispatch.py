"""Executors for tasks, whatever the policy."""

import math
from collections.abc import Collection, Iterable, Sequence

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import (
    ExitReason,
    Launch,
    Pause,
    StartExecutor,
    Stop,
    StopExecutor,
    WakeAt,
)
from alto_policy.dispatch import Dispatch
from alto_policy.events import Departure, ExecutorDown, ExecutorUp, TaskArrived, TimerFired
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.fifo import Fifo, FifoSettings
from alto_policy.types import GpuId, JobId, Task, TaskId
from alto_policy.view import ClusterView
from tests.policy.cases import UP, Ledger, gpus, job, left, memory, report, task

T = TaskId("t")
START = StartExecutor(T, (GpuId(0),))


def launch(*names: str) -> Launch:
    return Launch(T, GpuId(0), tuple(JobId(name) for name in names))


def too_large(name: str) -> Stop:
    return Stop(JobId(name), ExitReason.TOO_LARGE)


def wide(name: str, num_gpus: int) -> Task:
    return task(name, [job(f"{name}0")], num_gpus)


def test_tasks_get_the_lowest_free_gpus_in_the_order_of_arrival() -> None:
    controller = Controller(build(FifoSettings()), Cluster(gpus(4)))
    arrivals = [wide("a", 2), wide("b", 3), wide("c", 1), wide("d", 2)]
    decided = [controller.handle(TaskArrived(0.0, each)) for each in arrivals]
    assert decided == [
        (StartExecutor(TaskId("a"), (GpuId(0), GpuId(1))),),
        (),  # too wide for what is left, and in nobody's way
        (StartExecutor(TaskId("c"), (GpuId(2),)),),
        (),
    ]
    assert controller.handle(ExecutorDown(1.0, TaskId("a"))) == (
        StartExecutor(TaskId("a"), (GpuId(0), GpuId(1))),
    )


def test_a_hook_places_waiting_tasks_in_its_own_order() -> None:
    def narrow_first(tasks: Sequence[Task], cluster: ClusterView) -> Sequence[Task]:
        return sorted(tasks, key=lambda task: task.num_gpus)

    policy = build(FifoSettings(), place=narrow_first)
    controller = Controller(policy, Cluster(gpus(2)))
    for each in [wide("a", 2), wide("b", 2), wide("c", 1)]:
        controller.handle(TaskArrived(0.0, each))
    controller.handle(ExecutorUp(1.0, TaskId("a"), memory(9)))
    assert controller.handle(left("a0", Departure.FINISHED)) == (StopExecutor(TaskId("a")),)
    assert controller.handle(ExecutorDown(2.0, TaskId("a"))) == (
        StartExecutor(TaskId("c"), (GpuId(0),)),
    )


def test_tasks_of_one_moment_are_placed_when_all_have_arrived() -> None:
    def narrow_first(tasks: Sequence[Task], cluster: ClusterView) -> Sequence[Task]:
        return sorted(tasks, key=lambda task: task.num_gpus)

    policy = Fifo(FifoSettings(), place=narrow_first)
    policy.hears_all = True
    controller = Controller(policy, Cluster(gpus(2)))
    assert controller.handle(TaskArrived(3.0, wide("a", 2))) == (WakeAt(3.0),)
    assert controller.handle(TaskArrived(3.0, wide("b", 1))) == (WakeAt(3.0),)
    starts = (StartExecutor(TaskId("b"), (GpuId(0),)),)
    assert controller.handle(TimerFired(3.0)) == starts
    assert controller.handle(TimerFired(3.0)) == ()
    assert controller.handle(TaskArrived(4.0, wide("c", 1))) == (WakeAt(4.0),)
    assert controller.handle(TaskArrived(4.0, wide("d", 3))) == (too_large("d0"),)
    assert controller.handle(TimerFired(4.0)) == (StartExecutor(TaskId("c"), (GpuId(1),)),)


def test_a_task_wider_than_the_cluster_is_given_up() -> None:
    controller = Controller(build(FifoSettings()), Cluster(gpus(1)))
    assert controller.handle(TaskArrived(0.0, wide("a", 2))) == (too_large("a0"),)


def test_a_job_that_would_not_fit_alone_is_given_up() -> None:
    ledger = Ledger(FifoSettings(), [job("a", batch_size=4), job("b", batch_size=5), job("c")])
    assert ledger.tell(ExecutorUp(1.0, T, memory(4))) == (too_large("b"), launch("a"))
    assert ledger.tell(left("a", Departure.FINISHED)) == (launch("c"),)
    assert ledger.tell(left("c", Departure.FINISHED)) == (StopExecutor(T),)


def test_an_executor_without_a_job_that_fits_is_ended_at_once() -> None:
    ledger = Ledger(FifoSettings(), [job("a", batch_size=5)])
    assert ledger.tell(ExecutorUp(1.0, T, memory(4))) == (too_large("a"), StopExecutor(T))
    assert ledger.tell(ExecutorDown(2.0, T)) == ()


def test_an_evicted_job_waits_for_room_and_one_evicted_alone_is_given_up() -> None:
    ledger = Ledger(FifoSettings(), [job("a", batch_size=2), job("b", batch_size=2)])
    assert ledger.tell(ExecutorUp(1.0, T, memory(4))) == (launch("a", "b"),)
    assert ledger.tell(left("b", Departure.EVICTED)) == ()  # together they are 4 bytes: too much
    assert ledger.tell(left("a", Departure.FINISHED)) == (launch("b"),)
    assert ledger.tell(left("b", Departure.EVICTED)) == (too_large("b"), StopExecutor(T))


def with_late_report() -> tuple[Controller, Cluster]:
    """Job a had been told to pause when it reported that it is lost."""
    ledger = Cluster(gpus(1))
    controller = Controller(build(FifoSettings()), ledger)
    controller.handle(TaskArrived(0.0, task("t", [job("a"), job("b")], 1)))
    controller.handle(UP)
    ledger.commit(Pause(JobId("a")))
    assert controller.handle(report("a", 1, math.nan)) == ()
    return controller, ledger


def test_a_report_that_came_too_late_for_the_policy_counts_before_its_job_trains_again() -> None:
    lost = Stop(JobId("a"), ExitReason.NON_FINITE)
    controller, _ = with_late_report()
    assert controller.handle(left("a", Departure.PAUSED)) == (lost,)
    controller, ledger = with_late_report()
    ledger.apply(left("a", Departure.PAUSED))  # a policy that clears the executor asks nobody
    controller.handle(ExecutorDown(9.0, T))
    assert controller.handle(UP) == (lost, launch("b"))


def test_who_is_to_stop_anyway_is_not_stopped_for_a_late_report() -> None:
    controller, ledger = with_late_report()
    ledger.commit(Stop(JobId("a"), ExitReason.CANCELLED))
    assert controller.handle(left("a", Departure.PAUSED)) == ()


def test_a_job_of_the_batch_size_of_the_departed_comes_first() -> None:
    jobs = [job("a", batch_size=2), job("b"), job("c", batch_size=4), job("d", batch_size=2)]
    ledger = Ledger(AltoSettings(), [*jobs, job("e"), job("f", batch_size=2)])
    assert ledger.tell(ExecutorUp(1.0, T, memory(7))) == (launch("c", "a", "b"),)
    assert ledger.tell(left("b", Departure.FAILED)) == (launch("e"),)
    assert ledger.tell(left("c", Departure.FAILED)) == (launch("d", "f"),)


def test_survivors_come_before_the_queued() -> None:
    ledger = Ledger(FifoSettings(), [job("a"), job("b")])
    ledger.tell(ExecutorUp(1.0, T, memory(1)), ExecutorDown(2.0, T))
    assert ledger.tell(ExecutorUp(3.0, T, memory(1))) == (launch("a"),)


def test_an_executor_that_went_down_is_started_again() -> None:
    ledger = Ledger(FifoSettings(), [job("a"), job("b")])
    ledger.tell(UP, report("a", 1, 1.0))
    assert ledger.tell(ExecutorDown(2.0, T)) == (START,)
    assert ledger.tell(UP) == (launch("a", "b"),)


def test_timers_are_not_ours() -> None:
    assert Ledger(FifoSettings(), [job("a")]).tell(TimerFired(1.0)) == ()


@pytest.mark.parametrize("how", [Departure.FINISHED, Departure.FAILED])
def test_an_executor_ends_with_its_last_job(how: Departure) -> None:
    ledger = Ledger(FifoSettings(), [job("a"), job("b")])
    assert ledger.tell(UP, left("a", how)) == ()
    assert ledger.tell(left("b", how)) == (StopExecutor(T),)
    assert ledger.tell(ExecutorDown(2.0, T)) == ()


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_job_that_is_not_ready_is_not_launched(names: str) -> None:
    class Patient(Dispatch):
        def ready(self, task: Task, cluster: ClusterView) -> Iterable[Collection[JobId]]:
            return ()

    controller = Controller(Patient(), Cluster(gpus()))
    assert controller.handle(TaskArrived(0.0, task("t", [job(name) for name in names]))) == (START,)
    assert controller.handle(UP) == ()
