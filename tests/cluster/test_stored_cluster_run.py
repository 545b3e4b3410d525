"""A run of a cluster whose nodes share no disk: its jobs write to a store."""

import shutil
from pathlib import Path
from typing import Any

from alto_policy.events import ExecutorUp, LossReported
from alto_policy.types import JobId
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from tests.cluster.nodes import add_node
from tests.cluster.trouble import (
    PATIENCE_SECONDS,
    begin,
    free_gpus,
    go_on,
    kill_a_node,
    study_of,
    undisturbed,
    wait_for_event,
    wait_for_log,
)
from tests.tune.same import assert_same_outcome


def reported(result: Result) -> set[tuple[JobId, int]]:
    events = (entry.event for entry in result.log.entries)
    return {(event.job, event.step) for event in events if isinstance(event, LossReported)}


def test_a_lost_node_and_then_the_heads_own_disk(nodes: Any, tmp_path: Path) -> None:
    """What trains meanwhile knows more than the copied log: others go on, where that ends."""
    study = study_of(tmp_path / "study", samples=192)
    expected = undisturbed(study, tmp_path / "alone")
    out, there = tmp_path / "run", tmp_path / "there"
    quarter = len(expected.log.entries) // 4
    head = begin(study, out, nodes.address, f"local://{there}", stops_at=quarter)
    try:
        wait_for_log(out, quarter, head)
        kill_a_node(nodes)
        add_node(nodes)
        go_on(head)
        wait_for_event(out, ExecutorUp, head, count=2)
        wait_for_log(out, len(Result(out).log.entries) + 14, head)
    finally:
        head.kill()
        head.join()
    assert not {"jobs", "checkpoints", "writers", "claim"} & {path.name for path in out.iterdir()}
    assert (there / "run.jsonl").is_file()
    lines = (out / "run.jsonl").read_bytes().splitlines(keepends=True)
    (there / "run.jsonl").write_bytes(b"".join(lines[:-8]))
    shutil.rmtree(out)
    head = begin(study, tmp_path / "other", nodes.address, f"local://{there}")
    head.join(PATIENCE_SECONDS)
    assert head.exitcode == 0
    result = Result(tmp_path / "other")
    assert_same_outcome(result, expected)
    assert reported(result) == reported(expected)
    assert replay_run(tmp_path / "other")[1] is None
    free, total = free_gpus(nodes.address)
    assert free == total
