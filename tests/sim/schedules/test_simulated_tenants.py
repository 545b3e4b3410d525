"""Shares of tenants on a simulated cluster, from the settings of a study file."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_runs.fields import FieldError
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study_fields.policy_settings import parse_settings, written_settings
from alto_sim.simulate import simulate
from alto_sim.workloads.workload import Workload
from tests.sim.cases import MEMORY, NOW, SECOND, Flat, gpus, job, task


def simulated(policy: object, folder: Path) -> Result:
    """Thirty tasks of ten seconds for each of two tenants, on two GPUs; those of the first come
    first."""
    tasks = [
        replace(task(f"{tenant}{i}", [job(f"{tenant}{i}-0", 10, 1)]), tenant=tenant)
        for tenant in ("big", "small")
        for i in range(30)
    ]
    workload = Workload(
        arrivals=tuple(TaskArrived(0.0, each) for each in tasks),
        curves=Flat(),
        step_time=SECOND,
        latencies=NOW,
        memory=MEMORY,
    )
    return simulate(workload, parse_settings(policy), gpus(2), folder)


def gpu_seconds(result: Result, until: float) -> dict[str, float]:
    tenants = {each.id: each.tenant for each in result.history.tasks}
    had: dict[str, float] = defaultdict(float)
    for span in result.history.executors:
        had[tenants[span.task]] += max(0.0, min(span.end, until) - span.start)
    return dict(had)


def test_gpu_seconds_follow_the_shares(tmp_path: Path) -> None:
    """While both wait. In the order of arrival the first has all of it."""
    tenants = [{"name": "big", "share": 1}, {"name": "small", "share": 3}]
    shared = {"name": "shared", "tenants": tenants, "within": "fifo"}
    had = gpu_seconds(simulated(shared, tmp_path / "shared"), 160.0)
    assert had["small"] / had["big"] == pytest.approx(3, rel=0.15)
    equal = gpu_seconds(simulated({"name": "shared"}, tmp_path / "equal"), 160.0)
    assert equal["small"] == pytest.approx(equal["big"], rel=0.1)
    assert gpu_seconds(simulated("fifo", tmp_path / "fifo"), 150.0) == {"big": 300, "small": 0}
    count, difference = replay_run(tmp_path / "shared")
    assert (count > 100, difference) == (True, None)


def test_a_quota_is_never_passed(tmp_path: Path) -> None:
    shared = {"name": "shared", "tenants": [{"name": "big", "max_gpus": 1}], "within": "fifo"}
    result = simulated(shared, tmp_path / "run")
    spans = [span for span in result.history.executors if span.task.startswith("big")]
    assert len(spans) == 30
    ordered = sorted(spans, key=lambda span: span.start)
    assert all(a.end <= b.start for a, b in pairwise(ordered))


def test_settings_are_written_as_they_are_read() -> None:
    tenants = [{"name": "a", "share": 2}, {"name": "b", "max_gpus": 1}]
    within = {"name": "alto", "warmup": 0.1}
    settings = parse_settings({"name": "shared", "tenants": tenants, "within": within})
    assert parse_settings(written_settings(settings)) == settings


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"within": "sjf"}, ("within",)),
        ({"within": {"name": "alto", "warmpu": 1}}, ("within", "warmpu")),
        ({"tenants": [{"nam": "a"}]}, ("tenants", 0)),
        ({"tenants": "a"}, ("tenants",)),
    ],
)
def test_a_mistake_names_its_field(fields: dict[str, object], path: tuple[str | int, ...]) -> None:
    with pytest.raises(FieldError) as caught:
        parse_settings({"name": "shared", **fields})
    assert caught.value.path == path
