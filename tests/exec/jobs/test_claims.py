"""Of a task's executors the last one alone writes, whatever those before are in the middle of."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from alto_exec.executor import Executor
from alto_exec.jobs import keeping
from alto_exec.jobs.claims import claim_folder, claimant, succeeding
from alto_exec.jobs.sweeping import tidy
from alto_exec.site import Start, TaskFiles
from alto_policy.types import Task, TaskId
from alto_runs.files import artifacts
from alto_runs.files.artifacts import BarredError
from alto_runs.files.directory import RunDirectory
from tests.exec.comparing import in_double_precision
from tests.exec.test_executor import JOBS, STEADY, Story, finish, new_executor
from tests.forked import forked

TASK = TaskId("task")
SECONDS = 60.0
WRITTEN = 3  # by a job that leaves to go on: what tells of its adapter, its weights, its state
Place = Callable[[Path], RunDirectory]


def on_disk(folder: Path) -> RunDirectory:
    return RunDirectory(folder / "run")


def in_a_store(folder: Path) -> RunDirectory:
    return RunDirectory(folder / "run", f"file://{folder}/there")


def written(folder: Path) -> Mapping[Path, bytes]:
    """But for what is on its way to its name, and the leave to write."""
    named = (path for path in folder.rglob("*") if not path.name.startswith("."))
    found = (path for path in named if path.is_file() and "writers" not in path.parts)
    return {path: path.read_bytes() for path in found}


def train(executor: Executor, passes: int) -> None:
    for each in JOBS:
        executor.launch(each)
    finish(executor, Story(), passes=passes)
    for each in JOBS:
        executor.keeper.settle(each.id)


@pytest.mark.parametrize("place", [on_disk, in_a_store])
@pytest.mark.usefixtures("double_precision")
def test_who_came_up_before_writes_no_more(place: Place, tmp_path: Path) -> None:
    before = new_executor(succeeding(place(tmp_path), TASK))
    train(before, 4)
    kept = written(tmp_path)
    assert kept
    after = new_executor(succeeding(place(tmp_path), TASK))
    finish(before, Story(), passes=8)
    train(before, 0)
    assert written(tmp_path) == kept
    succeeding(place(tmp_path), TaskId("another"))
    train(after, 8)
    assert written(tmp_path) != kept


@pytest.mark.parametrize("place", [on_disk, in_a_store])
def test_who_trained_when_a_run_was_recovered_or_ended_writes_no_more(
    place: Place, tmp_path: Path
) -> None:
    for last in (claim_folder, tidy):
        directory = succeeding(place(tmp_path), TASK)
        directory.checkpoint(STEADY.id).write("state")
        first = claimant(directory)
        last(place(tmp_path))
        with pytest.raises(BarredError):
            directory.checkpoint(STEADY.id).write("older")
        assert (claimant(directory) != first) == (last is claim_folder)


def leave_and_stop(directory: RunDirectory, stops_at: int) -> None:
    """A job leaves, and all of this process stops in the middle of that file."""
    parts_of, number = artifacts._parts, 0

    def parts(data: artifacts.Data) -> Iterator[bytes | memoryview]:
        nonlocal number
        number += not isinstance(data, list)  # a store is given lists of parts that it has made
        yield from parts_of(data)
        is_on_its_way = isinstance(data, list | str) or directory.stored_at is None
        if number == stops_at and is_on_its_way:
            os.kill(os.getpid(), signal.SIGSTOP)

    vars(keeping)["_SHARE"] = 1e-12  # no state is kept before it leaves
    vars(artifacts)["_parts"] = parts
    with in_double_precision():
        executor = new_executor(directory)
        executor.launch(STEADY)
        finish(executor, Story(), passes=3)
        executor.leave(STEADY.id, keep=True)


@pytest.mark.parametrize("place", [on_disk, in_a_store])
@pytest.mark.parametrize("stops_at", range(1, WRITTEN + 1))
@pytest.mark.usefixtures("double_precision")
def test_who_was_stopped_in_the_middle_of_a_file_does_not_finish_it(
    stops_at: int, place: Place, tmp_path: Path
) -> None:
    stopped = forked(leave_and_stop, succeeding(place(tmp_path), TASK), stops_at)
    stopped.start()
    end = time.monotonic() + SECONDS
    while psutil.Process(stopped.pid).status() != psutil.STATUS_STOPPED:
        assert stopped.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    after = new_executor(succeeding(place(tmp_path), TASK))
    after.launch(STEADY)
    finish(after, Story(), passes=6)
    after.leave(STEADY.id, keep=True)
    kept = written(tmp_path)
    assert stopped.pid is not None
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.join(SECONDS)
    assert stopped.exitcode == 0
    assert written(tmp_path) == kept


def test_each_start_of_a_task_succeeds_the_one_before(tmp_path: Path) -> None:
    begin = Start(cast(Any, None), cast(Any, None), on_disk(tmp_path))
    files = TaskFiles(lambda _: begin, lambda _: begin.directory, lambda *_: None)
    task = cast(Task, SimpleNamespace(id=TASK))
    first, second = files.next_start(task), files.next_start(task)
    assert first is not None
    assert second is not None
    second.directory.checkpoint(STEADY.id).write("state")
    with pytest.raises(BarredError):
        first.directory.checkpoint(STEADY.id).write("older")
    assert TaskFiles(lambda _: None, files.directory_of, files.fail).next_start(task) is None
