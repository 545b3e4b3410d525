"""Preemptive policies keep the order of a moment as long as the same tasks are there."""

from collections.abc import Sequence

from alto_policy.controller import Controller
from alto_policy.decisions import StartExecutor
from alto_policy.events import Departure, Event, ExecutorDown, ExecutorUp, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.preemption import Preemptive, Service
from alto_policy.types import TaskId
from tests.policy.cases import gpus, job, left, memory, task


class Turning(Preemptive):
    """The first to arrive first if the tasks are an even number, else the last."""

    def __init__(self) -> None:
        super().__init__(round_seconds=100.0)
        self.asked_at: list[float] = []

    def urgencies(self, services: Sequence[Service], now: float, num_gpus: int) -> Sequence[float]:
        self.asked_at.append(now)
        return [each.number if len(services) % 2 == 0 else -each.number for each in services]


def scene(names: str) -> tuple[Turning, Controller]:
    """Two GPUs, on which the first two tasks run."""
    policy = Turning()
    controller = Controller(policy, Cluster(gpus(2)))
    for name in names:
        controller.handle(TaskArrived(0.0, task(name, [job(f"{name}0")])))
    for name in names[:2]:
        controller.handle(ExecutorUp(1.0, TaskId(name), memory(9)))
    policy.asked_at.clear()
    return policy, controller


def started(controller: Controller, event: Event) -> list[str]:
    return [d.task for d in controller.handle(event) if isinstance(d, StartExecutor)]


def test_an_executor_that_is_gone_changes_no_order_within_the_moment() -> None:
    policy, controller = scene("abcd")
    assert started(controller, ExecutorDown(5.0, TaskId("b"))) == ["b"]
    assert started(controller, ExecutorDown(5.0, TaskId("a"))) == ["a"]
    assert policy.asked_at == [5.0]
    assert started(controller, ExecutorDown(6.0, TaskId("a"))) == ["a"]
    assert policy.asked_at == [5.0, 6.0]


def test_a_task_that_ends_changes_it() -> None:
    policy, controller = scene("abcde")
    for name, next_one in (("a", "c"), ("b", "e")):
        controller.handle(left(f"{name}0", Departure.FINISHED))
        assert started(controller, ExecutorDown(5.0, TaskId(name))) == [next_one]
    assert policy.asked_at == [5.0, 5.0]
