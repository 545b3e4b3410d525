"""A node goes and comes back: what the ledger holds of its GPUs, and what a policy does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import Launch, StartExecutor
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    NodeDown,
    NodeUp,
    TaskArrived,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.ledger.transitions import IllegalDecisionError, ImpossibleEventError
from alto_policy.placement.on_kinds import Lanes, OnKinds
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Item, Pool
from alto_policy.policies import SETTINGS, build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Gpu, GpuId, JobId, TaskId
from alto_policy.view import ExecutorStatus, Status
from alto_runs.cpsat import CpSat
from tests.policy.cases import job, memory, task

SECONDS = {"wide": 50.0, "long": 30.0, "short": 5.0, "mid": 20.0}
T, A = TaskId("t"), JobId("a")
NODES = tuple(Gpu(id=GpuId(i), kind="toy", node=f"node{i // 2}") for i in range(4))


def training() -> Cluster:
    """Task t trains on both GPUs of node0."""
    ledger = Cluster(NODES)
    ledger.apply(TaskArrived(0.0, task("t", [job("a")], 2)))
    ledger.commit(StartExecutor(T, (GpuId(0), GpuId(1))))
    ledger.apply(ExecutorUp(1.0, T, memory(9)))
    ledger.commit(Launch(T, GpuId(0), (A,)))
    return ledger


def test_gpus_of_a_node_that_is_down_are_not_free_and_take_nobody() -> None:
    ledger = Cluster(NODES)
    ledger.apply(TaskArrived(0.0, task("t", [job("a")], 2)))
    assert ledger.apply(NodeDown(1.0, "node0"))
    assert ledger.free_gpus() == (2, 3)
    with pytest.raises(IllegalDecisionError, match="the node of GPU 1 is down"):
        ledger.commit(StartExecutor(T, (GpuId(1), GpuId(2))))
    assert ledger.apply(NodeUp(2.0, "node0"))
    assert ledger.free_gpus() == (0, 1, 2, 3)
    ledger.commit(StartExecutor(T, (GpuId(1), GpuId(2))))


def test_an_executor_there_is_lost_and_gives_its_gpus_back_only_when_they_are_repaired() -> None:
    ledger = training()
    ledger.apply(NodeDown(2.0, "node0"))
    executor = ledger.executor(T)
    assert executor is not None
    assert executor.status is ExecutorStatus.STOPPING
    with pytest.raises(IllegalDecisionError, match="its executor is stopping"):
        ledger.commit(Launch(T, GpuId(1), (A,)))
    ledger.apply(ExecutorDown(2.0, T))
    assert ledger.status(A) is Status.PAUSED
    assert ledger.free_gpus() == (2, 3)
    ledger.apply(NodeUp(3.0, "node0"))
    assert ledger.free_gpus() == (0, 1, 2, 3)


def test_news_of_an_executor_may_come_after_the_repair() -> None:
    ledger = training()
    ledger.apply(NodeDown(2.0, "node0"))
    ledger.apply(NodeUp(3.0, "node0"))
    assert ledger.free_gpus() == (2, 3)
    ledger.apply(ExecutorDown(3.5, T))
    assert ledger.free_gpus() == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([NodeDown(1.0, "node7")], "NodeDown: there is no node node7"),
        ([NodeUp(1.0, "node0")], "NodeUp: node node0 is up"),
        ([NodeDown(1.0, "node0"), NodeDown(2.0, "node0")], "NodeDown: node node0 is down"),
    ],
)
def test_what_cannot_have_happened(events: list[NodeDown | NodeUp], message: str) -> None:
    ledger = Cluster(NODES)
    for event in events[:-1]:
        ledger.apply(event)
    before = ledger.free_gpus()
    with pytest.raises(ImpossibleEventError, match=message):
        ledger.apply(events[-1])
    assert ledger.free_gpus() == before


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "elastic"])
def test_a_task_that_waits_for_a_repair_starts_with_it(name: str) -> None:
    """Its four GPUs are all there are. Of one node they cannot be."""
    controller = Controller(build(SETTINGS[name]()), Cluster(NODES))
    controller.handle(NodeDown(0.0, "node1"))
    decided = controller.handle(TaskArrived(1.0, task("t", [job("a")], 4)))
    assert not any(isinstance(one, StartExecutor) for one in decided)
    decided = controller.handle(NodeUp(5.0, "node1"))
    assert [one.gpus for one in decided if isinstance(one, StartExecutor)] == [(0, 1, 2, 3)]


class Placed:
    """Tasks that are placed, on two nodes of two GPUs; node0 is down from the beginning."""

    def __init__(self, kinds: tuple[str, str], **how: Any) -> None:
        place = Planner(lambda task, _: SECONDS[task.id], **how)
        nodes = tuple(replace(gpu, kind=kinds[gpu.id // 2]) for gpu in NODES)
        self._controller = Controller(build(FifoSettings(), place=place), Cluster(nodes))
        self._controller.handle(NodeDown(0.0, "node0"))

    def tell(self, event: Event) -> dict[str, tuple[int, ...]]:
        decided = self._controller.handle(event)
        return {each.task: each.gpus for each in decided if isinstance(each, StartExecutor)}

    def arrive(self, name: str, width: int) -> dict[str, tuple[int, ...]]:
        return self.tell(TaskArrived(1.0, task(name, [job(f"{name}0")], width)))

    def end(self, name: str) -> dict[str, tuple[int, ...]]:
        for event in (
            ExecutorUp(2.0, TaskId(name), memory(9)),
            JobLeft(3.0, JobId(f"{name}0"), Departure.FINISHED),
        ):
            self.tell(event)
        return self.tell(ExecutorDown(4.0, TaskId(name)))


@pytest.mark.parametrize("improver", [None, CpSat()], ids=["search", "exact"])
@pytest.mark.parametrize("reserve", [False, True])
@pytest.mark.parametrize("kinds", [("toy", "toy"), ("toy", "other")])
def test_a_gpu_that_is_down_is_not_there_for_any_plan(
    kinds: tuple[str, str], reserve: bool, improver: CpSat | None
) -> None:
    """Nobody is held up for a task that needs it, which starts when it is back."""
    scene = Placed(kinds, reserve=reserve, improver=improver)
    assert scene.arrive("wide", 4) == {}
    assert scene.arrive("short", 1) == {"short": (2,)}
    assert scene.arrive("mid", 2) == {}
    assert scene.end("short") == {"mid": (2, 3)}
    assert scene.end("mid") == {}
    assert scene.tell(NodeUp(5.0, "node0")) == {"wide": (0, 1, 2, 3)}


@pytest.mark.parametrize("kinds", [("toy", "toy"), ("toy", "other")])
def test_who_needs_it_does_not_hide_which_order_of_the_others_is_best(
    kinds: tuple[str, str],
) -> None:
    """After a task that comes last for certain all orders would end at the same time."""
    scene = Placed(kinds)
    assert scene.arrive("wide", 3) == {}
    assert scene.arrive("mid", 2) == {"mid": (2, 3)}
    for name in ("short", "long"):
        assert scene.arrive(name, 2) == {}
    assert scene.end("mid") == {"long": (2, 3)}


def test_of_two_kinds_one_half_of_which_is_down_a_task_takes_the_other() -> None:
    place = Planner(lambda task, _: SECONDS[task.id])
    kinds = ("toy", "toy", "other", "other")
    nodes = tuple(
        replace(gpu, kind=kind, node=f"node{gpu.id}")
        for gpu, kind in zip(NODES, kinds, strict=True)
    )
    controller = Controller(build(FifoSettings(), place=place), Cluster(nodes))
    controller.handle(NodeDown(0.0, "node0"))
    fast = replace(task("mid", [job("a")], 2), kinds=("toy", "other"), speeds=(1.0, 0.1))
    assert controller.handle(TaskArrived(1.0, fast)) == (
        StartExecutor(TaskId("mid"), (GpuId(2), GpuId(3))),
    )


class First:
    """An improver that has every task on the first of its kinds."""

    def __call__(self, items: Sequence[Item], pool: Pool, order: Sequence[int]) -> Sequence[int]:
        raise AssertionError("there are several kinds")

    def on_kinds(
        self,
        items: Sequence[Item],
        times: Sequence[OnKinds],
        lanes: Lanes,
        order: Sequence[int],
        chosen: Sequence[int | None],
    ) -> tuple[Sequence[int], Sequence[int | None]]:
        for on, kind in zip(times, chosen, strict=True):
            assert kind is None or kind in dict(on.seconds)
        return order, [on.seconds[0][0] for on in times]


def test_a_kind_that_was_chosen_is_forgotten_when_it_goes_down() -> None:
    place = Planner(lambda task, _: SECONDS[task.id], improver=First())
    kinds = ("toy", "toy", "other", "other")
    nodes = tuple(replace(gpu, kind=kind) for gpu, kind in zip(NODES, kinds, strict=True))
    controller = Controller(build(FifoSettings(), place=place), Cluster(nodes))
    for name in ("mid", "long"):
        controller.handle(TaskArrived(0.0, task(name, [job(f"{name}0")], 2)))
    assert controller.handle(NodeDown(1.0, "node0")) == ()
    (start,) = controller.handle(ExecutorDown(1.0, TaskId("mid")))
    assert start == StartExecutor(TaskId("long"), (GpuId(2), GpuId(3)))
