"""How many GPUs tasks take when a run goes on, whatever was asked for before."""

from dataclasses import replace

import pytest

from alto_exec.events.moving import Move, Resized, resized
from alto_exec.events.past import Past
from alto_policy.decisions import Resize, StartExecutor
from alto_policy.events import ExecutorUp, TaskArrived, TaskResized
from alto_policy.ledger.cluster import Cluster
from alto_policy.memory import MemoryModel
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId

JOB = Job(id=JobId("j"), hyperparameters=Hyperparameters(), steps=8, reports=4)
T = TaskId("t")
TASK = Task(id=T, jobs=(JOB,), backbone="tiny", max_length=8, widths=(1, 2))
GPU = Gpu(id=GpuId(0), kind="cpu")
ARRIVED = Entry(TaskArrived(0.0, TASK), (StartExecutor(T, (GPU.id,)),))
MEMORY = MemoryModel(capacity=100, fixed=0, per_rank=1, per_token=1)
ASKED = Entry(ExecutorUp(1.0, T, MEMORY), (Resize(T, 2),))


def ledger() -> Cluster:
    cluster = Cluster((GPU,))
    cluster.apply(TaskArrived(0.0, TASK))
    return cluster


@pytest.mark.parametrize(
    ("told", "left"), [((), [2]), ((2,), []), ((2, 1), [])], ids=["lost", "told", "told twice"]
)
def test_what_a_policy_has_asked_for_is_told_after_a_kill(
    told: tuple[int, ...], left: list[int]
) -> None:
    answers = [Entry(TaskResized(2.0, T, width), ()) for width in told]
    past = Past.of([ARRIVED, ASKED, *answers])
    assert list(past.going(3.0)) == [TaskResized(3.0, T, width) for width in left]


def test_where_a_run_goes_on_with_one_width_no_other_is_asked_for() -> None:
    move = Move.of(ledger(), (GPU,), (), 1)
    past = replace(Past.of([ARRIVED, ASKED]), move=move)
    assert list(past.going(3.0)) == [TaskResized(3.0, T, 1, ())]
    assert move.keeps(ledger(), T, (GPU.id,))


def test_what_was_chosen_stands_where_it_may_still_be() -> None:
    cluster = ledger()
    assert resized(cluster, 1, (1, 2)) == ()
    cluster.apply(TaskResized(1.0, T, 2))
    assert resized(cluster, 1, (1, 2)) == ()
    assert resized(cluster, 1, (1, 2, 3)) == (Resized(T, 2, (1, 2, 3)),)
    assert resized(cluster, 3, (3, 6)) == (Resized(T, 3, (3, 6)),)
    assert resized(cluster, 1) == (Resized(T, 1, ()),)
