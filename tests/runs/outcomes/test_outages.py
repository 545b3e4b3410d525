"""A node that is down, in the history of a run and in what is made of it."""

import json
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorDown, NodeDown, NodeUp, TaskArrived
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Header, RunLog
from alto_policy.types import Gpu, GpuId
from alto_runs.export import timeline
from alto_runs.outcomes.history import Outage, RunHistory, follow
from alto_runs.outcomes.metrics import measure, metrics_json
from alto_runs.report.gantt import draw_gantt
from alto_runs.result import Result
from tests.runs.cases import T, entry, job, launch, save, task, up

GPUS = tuple(Gpu(id=GpuId(i), kind="toy", node=f"node{i // 2}") for i in range(4))


@pytest.fixture
def log() -> RunLog:
    """Task t trains on GPU 0 until its node goes; node1 goes too, and does not come back."""
    entries = (
        entry(TaskArrived(0.0, task("t", [job("a")])), StartExecutor(T, (GpuId(0),))),
        entry(up(1.0), launch("a")),
        entry(NodeDown(5.0, "node0")),
        entry(ExecutorDown(5.0, T)),
        entry(NodeDown(7.0, "node1")),
        entry(NodeUp(9.0, "node0"), StartExecutor(T, (GpuId(1),))),
        entry(up(10.0), launch("a", gpu=1)),
    )
    return RunLog(Header(policy=FifoSettings(), gpus=GPUS), entries)


@pytest.fixture
def history(log: RunLog) -> RunHistory:
    return follow(log)


def test_outages_last_until_the_repair_or_the_end(history: RunHistory) -> None:
    assert history.outages == (
        Outage("node0", (GpuId(0), GpuId(1)), 5.0, 9.0),
        Outage("node1", (GpuId(2), GpuId(3)), 7.0, 10.0),
    )


def test_their_seconds_are_counted_for_each_gpu(history: RunHistory) -> None:
    metrics = measure(history)
    assert metrics.schedule.lost_gpu_seconds == 2 * 4 + 2 * 3
    told = json.loads("".join(metrics_json(metrics)))
    assert told["schedule"]["lost_gpu_seconds"] == 14


def test_the_picture_tells_that_the_node_was_down(history: RunHistory) -> None:
    assert "node is down" in draw_gantt(history, ())


def test_the_timeline_names_gpus_that_nobody_held(log: RunLog, tmp_path: Path) -> None:
    run = save(log, tmp_path / "run")
    events = json.loads(timeline(Result(run)))["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert set(names) == {event["pid"] for event in events}
    assert [names[gpu + 1] for gpu in range(4)] == ["GPU 0", "GPU 1", "GPU 2", "GPU 3"]
