"""A study of six tasks, trained by executors on two nodes of a Ray cluster."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import ExitReason, StartExecutor, Stop
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, JobId, TaskId
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_sim.simulate import play
from alto_sim.workload import recorded
from tests.cluster.six_tasks import six_tasks
from tests.tune.same import assert_same_outcome

SILENT = Console(quiet=True)
_TIMES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("six")


@pytest.fixture(scope="module")
def result(nodes: Any, folder: Path) -> Result:
    return tune(six_tasks(folder, _TIMES), folder / "run", cluster=nodes.address, console=SILENT)


def placements(entries: Iterable[Entry]) -> list[tuple[TaskId, tuple[GpuId, ...]]]:
    return [
        (decision.task, decision.gpus)
        for entry in entries
        for decision in entry.decisions
        if isinstance(decision, StartExecutor)
    ]


def stops(entries: Iterable[Entry]) -> dict[JobId, ExitReason]:
    return {
        decision.job: decision.reason
        for entry in entries
        for decision in entry.decisions
        if isinstance(decision, Stop)
    }


def test_tasks_fill_both_nodes_and_those_that_wait_follow(result: Result) -> None:
    assert result.log.header is not None
    assert [gpu.id for gpu in result.log.header.gpus] == [0, 1, 2, 3]
    first, *others = [gpu.node for gpu in result.log.header.gpus]
    assert others.count(first) == 1
    assert placements(result.log.entries) == [
        ("longest", (0,)),
        ("short", (1,)),
        ("long", (2,)),
        ("middle", (3,)),
        ("waits", (1,)),
        ("waits-too", (3,)),
    ]


def test_its_log_replays_byte_for_byte(result: Result) -> None:
    num_entries, difference = replay_run(result.directory.path)
    assert num_entries == len(result.log.entries)
    assert difference is None


def test_its_leaderboard_is_that_of_one_device(result: Result, folder: Path) -> None:
    """Alone, with the tasks one after another: packed otherwise, trained the same."""
    alone = tune(six_tasks(folder, _TIMES), folder / "alone", console=SILENT)
    assert_same_outcome(result, alone)


def test_the_simulator_places_and_stops_the_same(result: Result) -> None:
    header = result.log.header
    assert header is not None
    simulated: list[Entry] = []
    play(recorded(result.log), header.policy, header.gpus, simulated.append)
    assert placements(simulated) == placements(result.log.entries)
    assert stops(simulated) == stops(result.log.entries)


def test_no_gpu_is_kept(result: Result, nodes: Any) -> None:
    import ray

    ray.init(address=nodes.address, log_to_driver=False)
    try:
        assert ray.available_resources()["GPU"] == ray.cluster_resources()["GPU"] == 4
    finally:
        ray.shutdown()
