"""A node goes and comes back: what the ledger holds of its GPUs, and what a policy does."""

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import Launch, StartExecutor
from alto_policy.events import ExecutorDown, ExecutorUp, NodeDown, NodeUp, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.ledger.transitions import IllegalDecisionError, ImpossibleEventError
from alto_policy.policies import SETTINGS, build
from alto_policy.types import Gpu, GpuId, JobId, TaskId
from alto_policy.view import ExecutorStatus, Status
from tests.policy.cases import job, memory, task

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
