"""What a run tells on a terminal, and where there is none."""

from io import StringIO

import pytest
from rich.console import Console

from alto_exec.progress import Progress
from alto_policy.decisions import ExitReason, Launch, StartExecutor, Stop
from alto_policy.events import Departure, ExecutorUp, JobLeft, LossReported, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Task, TaskId
from tests.policy.cases import memory

GPU = GpuId(0)
JOBS = tuple(
    Job(id=JobId(name), hyperparameters=Hyperparameters(rank=rank), steps=40, reports=10)
    for name, rank in (("good", 8), ("bad", 4))
)
TASK = Task(id=TaskId("task"), jobs=JOBS, backbone="model", max_length=8)
ENTRIES = (
    Entry(TaskArrived(0.0, TASK), (StartExecutor(TASK.id, (GPU,)),)),
    Entry(
        ExecutorUp(1.0, TASK.id, memory(10**9)), (Launch(TASK.id, GPU, (JOBS[0].id, JOBS[1].id)),)
    ),
    Entry(LossReported(2.0, JOBS[0].id, 4, 1.5, 1.25), ()),
    Entry(LossReported(2.5, JOBS[1].id, 4, 9.5, 9.25), (Stop(JOBS[1].id, ExitReason.DIVERGED),)),
    Entry(JobLeft(3.0, JOBS[1].id, Departure.STOPPED), ()),
)


def told(*, is_terminal: bool) -> str:
    cluster = Cluster((Gpu(id=GPU, kind="cpu"),))
    text = StringIO()
    console = Console(
        file=text, force_terminal=is_terminal, width=120, height=50, color_system=None
    )
    with Progress(console, cluster, lambda: 1000) as progress:
        for entry in ENTRIES:
            cluster.apply(entry.event)
            for decision in entry.decisions:
                cluster.commit(decision)
            progress.show(entry)
    return text.getvalue()


def test_plain_lines_tell_reports_and_exits_with_their_reasons() -> None:
    text = told(is_terminal=False)
    assert "good step 4/40  train 1.5000  validation 1.2500" in text
    assert "bad stopped: diverged" in text
    assert "tokens/s" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("word", ["good", "running", "4/40", "1.2500", "tokens/s", "s more"])
def test_a_terminal_shows_a_live_table(word: str) -> None:
    last = told(is_terminal=True).rpartition("state")[2]
    assert word in last
    assert "bad" not in last
