"""An executor on GPUs of several nodes, where none has as many: a choice of the study."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import Launch, StartExecutor
from alto_runs.errors import UserError
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.nodes import add_node
from tests.cluster.trouble import HASTY, PATIENCE_SECONDS, begin, free_gpus, kill_a_node
from tests.forked import go_on, wait_for_stop
from tests.tune.same import assert_same_outcome

SILENT = Console(quiet=True)


def across(study: Study, gpus: int) -> Study:
    chosen = {"gpus": gpus, "across_nodes": True}
    return study.model_copy(update={"executor": study.executor.model_copy(update=chosen)})


def starts(result: Result) -> list[tuple[int, ...]]:
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    return [one.gpus for one in decisions if isinstance(one, StartExecutor)]


def test_ranks_of_two_nodes_end_as_one_device(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    result = tune(across(study, 4), tmp_path / "run", cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    assert {one.gpu for one in decisions if isinstance(one, Launch)} == {0, 1, 2, 3}
    assert result.log.header is not None
    assert len({gpu.node for gpu in result.log.header.gpus}) == 2
    assert replay_run(tmp_path / "run")[1] is None
    assert not (tmp_path / "run" / "meetings").exists()  # where the ranks have met
    free, total = free_gpus(nodes)
    assert free == total


def test_a_lost_node_is_a_lost_executor(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    third = len(expected.log.entries) // 3
    head = begin(across(study, 4), out, nodes.address, third, patience=HASTY)
    try:
        wait_for_stop(head)
        kill_a_node(nodes)
        add_node(nodes)
        go_on(head)
        head.join(PATIENCE_SECONDS)
        assert head.exitcode == 0
    finally:
        head.kill()
    result = Result(out)
    assert_same_outcome(result, expected)
    first, *others = starts(result)
    assert set(others) == {first} == {(0, 1, 2, 3)}  # a node that dies bit by bit may get one more
    assert replay_run(out)[1] is None
    free, total = free_gpus(nodes)
    assert free == total


def test_another_head_takes_it_over(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    """Its ranks share no disk: they meet by way of a store."""
    out, there = tmp_path / "run", f"file://{tmp_path}/there"
    third = len(expected.log.entries) // 3
    head = begin(across(study, 4), out, nodes.address, third, artifacts=there)
    try:
        wait_for_stop(head)
    finally:
        head.kill()
        head.join()
    result = tune(across(study, 4), out, resume=True, cluster=nodes.address, console=SILENT)
    assert_same_outcome(result, expected)
    assert not (tmp_path / "there" / "meetings").exists()
    assert starts(result) == [(0, 1, 2, 3)]


def test_more_gpus_than_all_nodes_have(nodes: Any, study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^executor.gpus: value 5: all nodes of the cluster"):
        tune(across(study, 5), tmp_path / "run", cluster=nodes.address, console=SILENT)
