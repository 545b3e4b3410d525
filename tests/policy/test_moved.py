"""Tasks of another width: a run goes on with other GPUs, or a policy has asked for it."""

from dataclasses import replace

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import (
    ExitReason,
    Launch,
    Resize,
    StartExecutor,
    Stop,
    StopExecutor,
)
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskCancelled,
    TaskResized,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.ledger.transitions import IllegalDecisionError, ImpossibleEventError
from alto_policy.policies import SETTINGS, build
from alto_policy.types import Gpu, GpuId, JobId, TaskId
from tests.policy.cases import job, memory, task

T, OTHER = TaskId("t"), TaskId("other")


def gpus(node: str, *ids: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(id=GpuId(each), kind="toy", node=node) for each in ids)


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", SETTINGS)
def test_every_policy_goes_on_with_another_width(name: str, width: int) -> None:
    ledger = Cluster(gpus("a", 0, 1))
    controller = Controller(build(SETTINGS[name]()), ledger)
    controller.handle(TaskArrived(0.0, task("t", [job("a"), job("b")], 2)))
    controller.handle(TaskArrived(0.0, task("other", [job("c"), job("d")], 2)))
    controller.handle(ExecutorUp(1.0, T, memory(9)))
    before: list[Event] = [NodeDown(2.0, "a")]
    before += [TaskResized(2.0, each, width) for each in (T, OTHER)]
    for event in (*before, ExecutorDown(2.0, T)):
        decided = controller.handle(event)
        assert not any(isinstance(one, StartExecutor) for one in decided)
    decided = controller.handle(NodeUp(2.0, "a", gpus("a", *range(width))))
    starts = [one for one in decided if isinstance(one, StartExecutor)]
    assert [start.gpus for start in starts] == [tuple(range(width))]
    launched = controller.handle(ExecutorUp(3.0, starts[0].task, memory(9)))
    assert any(isinstance(one, Launch) for one in launched)
    assert ledger.task_of(JobId("a")).num_gpus == width
    decided = controller.handle(TaskArrived(4.0, task("new", [job("e")], width)))
    assert not any(isinstance(one, Stop) for one in decided)


def test_a_task_that_is_resized_where_gpus_are_free_starts() -> None:
    controller = Controller(build(SETTINGS["fifo"]()), Cluster(gpus("a", 0, 1)))
    controller.handle(TaskArrived(0.0, task("other", [job("c")], 1)))
    assert controller.handle(TaskArrived(0.0, task("t", [job("a")], 2))) == ()
    assert controller.handle(TaskResized(1.0, T, 1)) == (StartExecutor(T, (GpuId(1),)),)


def test_a_task_that_waits_does_not_start_as_it_was() -> None:
    controller = Controller(build(SETTINGS["fifo"]()), Cluster(gpus("a", 0, 1)))
    for name, each in (("other", "c"), ("y", "d"), ("t", "a")):
        controller.handle(TaskArrived(0.0, task(name, [job(each)], 1)))
    controller.handle(TaskResized(1.0, T, 2))
    assert StopExecutor(OTHER) in controller.handle(TaskCancelled(2.0, OTHER))
    assert controller.handle(ExecutorDown(3.0, OTHER)) == ()


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (TaskResized(1.0, TaskId("x"), 1), "TaskResized: task x is unknown"),
        (TaskResized(1.0, T, 0), "TaskResized: task t: num_gpus must be at least 1, got 0"),
        (TaskResized(1.0, T, 3, (1, 2)), r"TaskResized: task t: widths must be increasing, num_"),
        (TaskResized(1.0, T, 1, (2, 1)), r"TaskResized: task t: widths must be increasing, num_"),
        (NodeUp(1.0, "b", gpus("b", 1)), r"NodeUp: the ids \[1\] of node b are taken"),
        (NodeUp(1.0, "b", gpus("c", 4)), "NodeUp: a GPU of node c is not of b"),
        (NodeUp(1.0, "a", gpus("a", 4)), "NodeUp: node a is up"),
    ],
)
def test_what_cannot_have_happened(event: Event, message: str) -> None:
    ledger = Cluster(gpus("a", 0, 1))
    ledger.apply(TaskArrived(0.0, task("t", [job("a")], 2)))
    with pytest.raises(ImpossibleEventError, match=message):
        ledger.apply(event)
    assert (ledger.gpus, ledger.free_gpus()) == (gpus("a", 0, 1), (0, 1))


def test_gpus_are_replaced_when_nobody_holds_them() -> None:
    ledger = Cluster(gpus("a", 0, 1))
    ledger.apply(TaskArrived(0.0, task("t", [job("a")], 2)))
    ledger.commit(StartExecutor(T, (GpuId(0), GpuId(1))))
    ledger.apply(NodeDown(1.0, "a"))
    with pytest.raises(ImpossibleEventError, match="NodeUp: GPU 0 is held by t"):
        ledger.apply(NodeUp(1.0, "a", gpus("a", 0)))
    ledger.apply(ExecutorDown(1.0, T))
    ledger.apply(NodeUp(1.0, "a", gpus("a", 0)))
    assert (ledger.gpus, ledger.free_gpus()) == (gpus("a", 0), (0,))


def elastic_ledger() -> Cluster:
    """Task t may have one GPU or two, and has one."""
    ledger = Cluster(gpus("a", 0, 1))
    ledger.apply(TaskArrived(0.0, replace(task("t", [job("a")], 1), widths=(1, 2))))
    return ledger


def test_a_task_is_as_wide_as_was_told_not_as_was_asked_for() -> None:
    ledger = elastic_ledger()
    ledger.commit(Resize(T, 2))
    assert ledger.tasks()[T].num_gpus == 1
    ledger.commit(StartExecutor(T, (GpuId(0),)))
    assert ledger.apply(TaskResized(1.0, T, 2))
    assert ledger.tasks()[T].widths == (1, 2)
    executor = ledger.executor(T)
    assert executor is not None
    assert (executor.gpus, ledger.free_gpus()) == ((0,), (1,))
    ledger.apply(ExecutorDown(2.0, T))
    with pytest.raises(IllegalDecisionError, match="the task takes 2 GPUs"):
        ledger.commit(StartExecutor(T, (GpuId(0),)))
    ledger.commit(StartExecutor(T, (GpuId(0), GpuId(1))))


def test_where_nothing_may_be_chosen_any_more() -> None:
    ledger = elastic_ledger()
    ledger.apply(TaskResized(1.0, T, 3, ()))
    assert (ledger.tasks()[T].num_gpus, ledger.tasks()[T].widths) == (3, ())
    with pytest.raises(IllegalDecisionError, match=r"the task takes \[\] GPUs"):
        ledger.commit(Resize(T, 2))


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [("x", 1, "no such task"), ("t", 3, r"the task takes \[1, 2\] GPUs")],
)
def test_what_may_not_be_asked_for(name: str, width: int, message: str) -> None:
    ledger = elastic_ledger()
    with pytest.raises(IllegalDecisionError, match=rf"^Resize\(.*{message}"):
        ledger.commit(Resize(TaskId(name), width))


def test_who_is_over_is_not_resized() -> None:
    cancelled = elastic_ledger()
    cancelled.apply(TaskCancelled(1.0, T))
    ended = elastic_ledger()
    ended.commit(Stop(JobId("a"), ExitReason.DIVERGED))
    for ledger in (cancelled, ended):
        with pytest.raises(IllegalDecisionError, match="the task is over"):
            ledger.commit(Resize(T, 2))
        assert not ledger.apply(TaskResized(1.0, T, 2))


def test_one_that_is_resized_to_and_fro_starts_once() -> None:
    controller = Controller(build(SETTINGS["fifo"]()), Cluster(gpus("a", 0, 1)))
    controller.handle(TaskArrived(0.0, task("other", [job("c")], 2)))
    controller.handle(TaskArrived(0.0, replace(task("t", [job("a")], 1), widths=(1, 2))))
    for width in (2, 1, 2, 1):
        controller.handle(TaskResized(1.0, T, width))
    controller.handle(TaskCancelled(2.0, OTHER))
    assert controller.handle(ExecutorDown(3.0, OTHER)) == (StartExecutor(T, (GpuId(0),)),)
