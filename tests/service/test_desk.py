"""What is filed of a study while the GPUs of its service change."""

from alto_policy.controller import Controller
from alto_policy.events import (
    Event,
    ExecutorDown,
    ExecutorUp,
    NodeDown,
    NodeUp,
    TaskArrived,
    TaskResized,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import SETTINGS, build
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import Gpu, GpuId, TaskId
from alto_runs.outcomes.history import follow
from alto_service.desk import Desk
from tests.policy.cases import job, memory, task

T = TaskId("s1.t")
FIFO = SETTINGS["fifo"]()


def gpus(node: str, *ids: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(id=GpuId(each), kind="toy", node=node) for each in ids)


def test_a_history_knows_the_gpus_that_its_executors_had() -> None:
    begun, joined = gpus("a", 0, 1, 2), gpus("b", 3)
    ledger = Cluster(begun)
    desk, entries = Desk(ledger, begun), list[Entry]()
    controller = Controller(build(FIFO), ledger, entries.append)
    events: list[Event] = [
        TaskArrived(0.0, task(T, [job("s1.a")], 2)),
        ExecutorUp(1.0, T, memory(9)),
        NodeDown(2.0, "a"),
        TaskResized(2.0, T, 1),
        ExecutorDown(2.0, T),
        NodeUp(2.0, "b", joined),
        ExecutorUp(3.0, T, memory(9)),
    ]
    for event in events:
        controller.handle(event)
    (study, *_) = [study for entry in entries for study in desk.file(entry)]
    assert tuple(study.gpus.values()) == (*begun[:2], *joined)
    header = Header(policy=FIFO, gpus=tuple(study.gpus.values()))
    history = follow(RunLog(header, tuple(study.entries)))
    assert [span.gpus for span in history.executors] == [(0, 1), (3,)]
