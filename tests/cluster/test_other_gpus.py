"""A run goes on with another number of GPUs of a cluster, and between a cluster and one device."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import StartExecutor
from alto_runs.files.directory import RunDirectory
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.test_ranks import wide
from tests.cluster.trouble import begin, free_gpus
from tests.forked import wait_for_stop
from tests.tune.cut import begun_and_hardly_kept
from tests.tune.same import assert_same_outcome

QUIET = Console(quiet=True)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, None)])
def test_ends_as_if_never_moved(
    first: int, then: int | None, nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    third = len(expected.log.entries) // 3
    head = begin(wide(study, first), out, nodes.address, third)
    try:
        wait_for_stop(head)
        assert RunDirectory(out).writers.names()
    finally:
        head.kill()
        head.join()
    later = study if then is None else wide(study, then)
    address = None if then is None else nodes.address
    result = tune(later, out, resume=True, cluster=address, console=QUIET)
    assert_same_outcome(result, expected)
    assert replay_run(out)[1] is None
    # What the killed head has left trains on for a while, and writes no more.
    assert not result.directory.writers.names()
    decisions = [decision for entry in result.log.entries for decision in entry.decisions]
    starts = [len(one.gpus) for one in decisions if isinstance(one, StartExecutor)]
    assert (starts[0], starts[-1]) == (first, then or 1)
    if address is None:  # the cluster holds what the killed head has left until it is asked again
        again = tune(wide(study, first), out, resume=True, cluster=nodes.address, console=QUIET)
        assert_same_outcome(again, expected)
        assert replay_run(out)[1] is None
    free, total = free_gpus(nodes)
    assert free == total


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_cluster_trains_again_what_one_device_had_not_kept(
    gpus: int, nodes: Any, study: Study, expected: Result, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    begun_and_hardly_kept(expected, out)
    result = tune(wide(study, gpus), out, resume=True, cluster=nodes.address, console=QUIET)
    assert_same_outcome(result, expected)
    assert replay_run(out)[1] is None
