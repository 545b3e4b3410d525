"""Guarantee 4 on a cluster: whatever dies, the run ends as if nothing had."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alto_policy.events import LossReported
from alto_policy.types import JobId
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.cluster.trouble import ended, free_gpus
from tests.tune.same import assert_same_outcome, assert_same_values


def reports(result: Result) -> dict[tuple[JobId, int], list[tuple[float, float]]]:
    found: dict[tuple[JobId, int], list[tuple[float, float]]] = {}
    for entry in result.log.entries:
        if isinstance(entry.event, LossReported):
            losses = (entry.event.train_loss, entry.event.val_loss)
            found.setdefault((entry.event.job, entry.event.step), []).append(losses)
    return found


def test_whatever_dies_the_run_ends_as_if_nothing_had(
    cluster_seed: int,
    nodes: Any,
    study: Study,
    expected: Result,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    out = tmp_path / "run"
    trouble = ended(study, out, nodes, cluster_seed, len(expected.log.entries))
    for name, value in asdict(trouble).items():
        record_property(name, str(value))  # what a process of xdist can send
    result = Result(out)
    assert_same_outcome(result, expected)
    assert replay_run(out)[1] is None
    free, total = free_gpus(nodes)
    assert free == total
    told, known = reports(result), reports(expected)
    assert all(len(losses) == 1 for losses in told.values())
    for report in told.keys() & known.keys():
        for ours, theirs in zip(told[report][0], known[report][0], strict=True):
            if not math.isnan(theirs):
                assert_same_values(ours, theirs)
