"""A study of six tasks, trained by executors on two nodes of a Ray cluster."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import ExitReason, StartExecutor, Stop
from alto_policy.events import ExecutorDown
from alto_policy.policies import build
from alto_policy.runlog import Entry
from alto_policy.types import GpuId, JobId, TaskId
from alto_runs.own_policy import own_policy
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from alto_sim.simulate import play
from alto_sim.workloads.from_logs import recorded
from tests.cluster.trouble import free_gpus
from tests.tune.same import assert_same_outcome

SILENT = Console(quiet=True)
# How late an executor comes up must not decide which task ends first.
TOGETHER = """\
from alto_policy.events import ExecutorUp
from alto_policy.exits import ExitRules
from alto_policy.policies.alto import Alto, AltoSettings


class Together(Alto):
    def __init__(self):
        rules = ExitRules(gap=0.02, overfitting_patience=1)
        super().__init__(AltoSettings(warmup=0.25, rules=rules))
        self.ups = []

    def observe(self, event, cluster):
        decide = super().observe
        if self.ups is None or not isinstance(event, ExecutorUp):
            return decide(event, cluster)
        self.ups.append(event)
        if len(self.ups) < len(cluster.gpus):
            return ()
        ups, self.ups = self.ups, None
        return tuple(decision for up in ups for decision in decide(up, cluster))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def study(folder: Path, six: tuple[Study, Result]) -> Study:
    """Under its policy, but for that nobody trains before each GPU has an executor."""
    given, _ = six
    (folder / "together.py").write_text(TOGETHER)
    together = own_policy(folder / "together.py")
    assert build(together)._settings == given.policy  # type: ignore[attr-defined]
    return given.model_copy(update={"policy": together})


@pytest.fixture(scope="module")
def result(nodes: Any, study: Study, folder: Path) -> Result:
    return tune(study, folder / "run", cluster=nodes.address, console=SILENT)


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
    found = placements(result.log.entries)
    assert found[:4] == [("longest", (0,)), ("short", (1,)), ("long", (2,)), ("middle", (3,))]
    places = dict(found)
    events = [entry.event for entry in result.log.entries]
    freed = [places[event.task] for event in events if isinstance(event, ExecutorDown)]
    assert found[4:] == [("waits", freed[0]), ("waits-too", freed[1])]


def test_its_log_replays_byte_for_byte(result: Result) -> None:
    num_entries, difference = replay_run(result.directory.path)
    assert num_entries == len(result.log.entries)
    assert difference is None


def test_its_leaderboard_is_that_of_one_device(result: Result, six: tuple[Study, Result]) -> None:
    assert_same_outcome(result, six[1])


def test_the_simulator_places_and_stops_the_same(result: Result) -> None:
    header = result.log.header
    assert header is not None
    simulated: list[Entry] = []
    play(recorded(result.log), header.policy, header.gpus, simulated.append)
    assert placements(simulated) == placements(result.log.entries)
    assert stops(simulated) == stops(result.log.entries)


def test_no_gpu_is_kept(result: Result, nodes: Any) -> None:
    assert free_gpus(nodes) == (4, 4)
