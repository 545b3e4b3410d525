"""An executor on two GPUs of a node, as two ranks that Ray has launched."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import Launch, StartExecutor
from alto_policy.events import ExecutorDown
from alto_runs.errors import UserError
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.trouble import PATIENCE_SECONDS, begin, free_gpus, kill_a_rank
from tests.forked import go_on, wait_for_stop
from tests.tune.same import assert_same_outcome

SILENT = Console(quiet=True)


def wide(study: Study, gpus: int) -> Study:
    return study.model_copy(update={"executor": study.executor.model_copy(update={"gpus": gpus})})


def launches(result: Result) -> set[int]:
    return {
        decision.gpu
        for entry in result.log.entries
        for decision in entry.decisions
        if isinstance(decision, Launch)
    }


def test_two_ranks_end_as_one_device(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    result = tune(wide(study, 2), tmp_path / "run", cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    assert launches(result) == {0, 1}
    assert replay_run(tmp_path / "run")[1] is None
    free, total = free_gpus(nodes)
    assert free == total


@pytest.mark.parametrize("rank", [0, 1])
def test_a_lost_rank_is_a_lost_executor(
    rank: int, nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    third = len(expected.log.entries) // 3
    head = begin(wide(study, 2), out, nodes.address, third)
    try:
        wait_for_stop(head)
        kill_a_rank(nodes, rank)
        go_on(head)
        head.join(PATIENCE_SECONDS)
        assert head.exitcode == 0
    finally:
        head.kill()
    result = Result(out)
    assert_same_outcome(result, expected)
    downs = sum(isinstance(entry.event, ExecutorDown) for entry in result.log.entries)
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    starts = [one.gpus for one in decisions if isinstance(one, StartExecutor)]
    assert (downs, starts) == (2, [(0, 1), (0, 1)])
    free, total = free_gpus(nodes)
    assert free == total


def test_more_gpus_than_a_node_has(nodes: Any, study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^executor.gpus: value 3: no node of the cluster has"):
        tune(wide(study, 3), tmp_path / "run", cluster=nodes.address, console=SILENT)


def test_one_device_is_not_two(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^executor.gpus: value 2: a task has one GPU here"):
        tune(wide(study, 2), tmp_path / "run", console=SILENT)
