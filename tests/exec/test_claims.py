"""A run that goes on elsewhere: executors that came up before write nothing more to its folder."""

from pathlib import Path

import pytest

from alto_exec.claims import claim, claimant
from alto_exec.executor import Executor
from alto_policy.cluster import Cluster
from alto_policy.decisions import StartExecutor
from alto_policy.events import TaskArrived
from alto_policy.types import GpuId, TaskId
from alto_runs.directory import RunDirectory
from tests.exec.test_executor import JOBS, Story, finish, new_executor
from tests.policy.cases import gpus, job, task


def claimed(folder: Path) -> str:
    """By a run with one task that has an executor, and one that waits and has a folder alone."""
    cluster = Cluster(gpus())
    tasks = [task(name, [job(f"{name}-0")]) for name in ("trains", "waits")]
    for each in tasks:
        cluster.apply(TaskArrived(0.0, each))
    cluster.commit(StartExecutor(tasks[0].id, (GpuId(0),)))
    waiting = RunDirectory(folder / "waiting")

    def directory_of(name: TaskId) -> RunDirectory:
        return RunDirectory(folder) if name == tasks[0].id else waiting

    claim(cluster, directory_of)
    assert not claimant(waiting)
    return claimant(RunDirectory(folder))


def checkpoints(executor: Executor, folder: Path) -> list[Path]:
    """When all that was begun is written."""
    for each in JOBS:
        executor.keeper.settle(each.id)
    return sorted((folder / "checkpoints").glob("*"))


@pytest.mark.usefixtures("double_precision")
def test_who_came_up_before_writes_no_more(tmp_path: Path) -> None:
    before = new_executor(tmp_path)
    for each in JOBS:
        before.launch(each)
    finish(before, Story(), passes=4)
    kept = {path: path.read_bytes() for path in checkpoints(before, tmp_path)}
    assert kept
    first = claimed(tmp_path)
    finish(before, Story(), passes=8)
    assert {path: path.read_bytes() for path in checkpoints(before, tmp_path)} == kept
    assert first != claimed(tmp_path) != ""


@pytest.mark.usefixtures("double_precision")
def test_who_comes_up_after_writes(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    claimed(tmp_path)
    after = new_executor(tmp_path)
    after.launch(JOBS[0])
    finish(after, Story(), passes=4)
    assert checkpoints(after, tmp_path)
