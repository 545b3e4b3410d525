"""The policy is told of a node that is lost, and of one that stands in for it."""

from pathlib import Path
from typing import Any

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorDown, ExecutorUp, NodeDown, NodeUp
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.nodes import add_node
from tests.cluster.trouble import HASTY, PATIENCE_SECONDS, begin, free_gpus, kill_a_node
from tests.forked import go_on, wait_for_stop
from tests.tune.same import assert_same_outcome


def test_nothing_is_placed_on_it_until_another_stands_in(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    head = begin(study, out, nodes.address, 12, NodeDown, patience=HASTY)
    try:
        wait_for_stop(head)
        kill_a_node(nodes)
        go_on(head)
        wait_for_stop(head)
        add_node(nodes)
        go_on(head)
        head.join(PATIENCE_SECONDS)
        assert head.exitcode == 0
    finally:
        head.kill()
    result = Result(out)
    assert_same_outcome(result, expected)
    assert replay_run(out)[1] is None
    events = [entry.event for entry in result.log.entries]
    kinds = (ExecutorUp, ExecutorDown, NodeDown, NodeUp)
    told = [type(event) for event in events if isinstance(event, kinds)]
    assert told.index(NodeDown) < told.index(NodeUp)
    assert result.log.header is not None
    gpus = result.log.header.gpus
    assert [event.node for event in events if isinstance(event, NodeDown)] == [gpus[0].node]
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    starts = [one.gpus for one in decisions if isinstance(one, StartExecutor)]
    assert (starts[0], starts[-1]) == ((0,), (2,))
    free, total = free_gpus(nodes)
    assert free == total
