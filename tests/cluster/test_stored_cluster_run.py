"""A run of a cluster whose nodes share no disk: its jobs write to a store."""

import shutil
from pathlib import Path
from typing import Any

from alto_policy.events import ExecutorUp, LossReported
from alto_policy.types import JobId
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.nodes import add_node
from tests.cluster.trouble import HASTY, PATIENCE_SECONDS, begin, free_gpus, kill_a_node
from tests.forked import go_on, wait_for_stop
from tests.tune.same import assert_same_outcome


def reported(result: Result) -> set[tuple[JobId, int]]:
    events = (entry.event for entry in result.log.entries)
    return {(event.job, event.step) for event in events if isinstance(event, LossReported)}


def test_a_lost_node_and_then_the_heads_own_disk(
    nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    """What trains meanwhile knows more than the copied log: others go on, where that ends."""
    out, there = tmp_path / "run", tmp_path / "there"
    store = f"local://{there}"
    moments = (len(expected.log.entries) // 4, ExecutorUp, 14)
    head = begin(study, out, nodes.address, *moments, artifacts=store, patience=HASTY)
    try:
        wait_for_stop(head)
        kill_a_node(nodes)
        add_node(nodes)
        for _ in range(2):
            go_on(head)
            wait_for_stop(head)
    finally:
        head.kill()
        head.join()
    assert not {"jobs", "checkpoints", "writers", "claim"} & {path.name for path in out.iterdir()}
    assert (there / "run.jsonl").is_file()
    lines = (out / "run.jsonl").read_bytes().splitlines(keepends=True)
    (there / "run.jsonl").write_bytes(b"".join(lines[:-8]))
    shutil.rmtree(out)
    head = begin(study, tmp_path / "other", nodes.address, artifacts=store)
    head.join(PATIENCE_SECONDS)
    assert head.exitcode == 0
    result = Result(tmp_path / "other")
    assert_same_outcome(result, expected)
    assert reported(result) == reported(expected)
    assert replay_run(tmp_path / "other")[1] is None
    free, total = free_gpus(nodes)
    assert free == total
