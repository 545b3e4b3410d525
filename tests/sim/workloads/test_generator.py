"""Generated workloads: their rhythm, their mix, their load, and what stays of a trace's rows."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, median, pstdev

import pytest

from alto_policy.events import TaskArrived
from alto_policy.policies.alto import AltoSettings
from alto_policy.runlog import Entry
from alto_policy.types import Task
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.step_profile import StepProfile
from alto_runs.profile import read_profile
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.simulate import play
from alto_sim.workloads.generator import (
    PAPER_MIX,
    Arrivals,
    Bursty,
    DataSize,
    Poisson,
    Recorded,
    arrivals_at_load,
    generate,
    retune,
)
from alto_sim.workloads.workload import Workload, profiled
from tests.runs.costs.profiles import SHIPPED
from tests.sim.cases import gpus, job, task

SMALL = replace(
    PAPER_MIX,
    models=(
        replace(
            PAPER_MIX.models[0],
            search=replace(PAPER_MIX.models[0].search, ranks=(16,), batch_sizes=(2, 4)),
        ),
    ),
)


def gaps(arrived: tuple[TaskArrived, ...]) -> list[float]:
    times = [each.t for each in arrived]
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize(
    ("arrivals", "variation"),
    [
        pytest.param(Poisson(), 1.0, id="independent"),
        pytest.param(Bursty(mean_burst=5.0), 3.0, id="in bursts"),
        pytest.param(Recorded((0.0, 1.0, 2.0, 9.0)), 0.94, id="as recorded"),
    ],
)
def test_gaps_have_their_mean_and_their_variation(arrivals: Arrivals, variation: float) -> None:
    found = gaps(generate(SMALL, arrivals, count=2400, gap_seconds=60.0, seed=1))
    assert fmean(found) == pytest.approx(60, rel=0.12)
    assert pstdev(found) / fmean(found) == pytest.approx(variation, rel=0.12)


def test_a_mix_is_drawn_by_its_weights() -> None:
    mix = replace(PAPER_MIX, tenants=(("ann", 3.0), ("bob", 1.0)))
    tasks = [each.task for each in generate(mix, Poisson(), count=600, gap_seconds=1.0, seed=0)]
    models = Counter(each.backbone for each in tasks)
    assert models["Llama-3.1-8B"] / 600 == pytest.approx(4 / 11, abs=0.06)
    assert models["Llama-3.1-70B"] / 600 == pytest.approx(1 / 11, abs=0.04)
    assert {each.num_gpus for each in tasks if "70B" in each.backbone} == {4}
    assert Counter(each.tenant for each in tasks)["ann"] / 600 == pytest.approx(0.75, abs=0.06)
    assert {len(each.jobs) for each in tasks} == {60, 64}


def test_a_job_sees_every_sample_for_some_epochs() -> None:
    mix = replace(SMALL, data=DataSize(median=1000, spread=0.5))
    tasks = [each.task for each in generate(mix, Poisson(), count=300, gap_seconds=1.0, seed=0)]
    sizes = []
    for each in tasks:
        samples = [spec.samples(spec.steps) for spec in each.jobs]
        assert max(samples) - min(samples) < 4  # the last batch is a whole one
        sizes.append(each.jobs[0].samples(each.jobs[0].steps) / 3)
    assert median(sizes) == pytest.approx(1000, rel=0.15)


def test_tasks_do_not_depend_on_when_they_arrive() -> None:
    first = generate(SMALL, Poisson(), count=5, gap_seconds=1.0, seed=7)
    other = generate(SMALL, Bursty(), count=9, gap_seconds=50.0, seed=7)
    assert [each.task for each in first] == [each.task for each in other[:5]]
    assert generate(SMALL, Poisson(), count=5, gap_seconds=1.0, seed=7) == first
    assert generate(SMALL, Poisson(), count=5, gap_seconds=1.0, seed=8) != first


def test_a_load_is_the_share_of_gpu_seconds_that_are_asked_for() -> None:
    def seconds(task: Task) -> float:
        return 10.0 * len(task.jobs) / task.num_gpus

    arrived = arrivals_at_load(
        PAPER_MIX, Poisson(), count=1500, seed=0, seconds=seconds, num_gpus=16, load=0.8
    )
    asked = sum(seconds(each.task) * each.task.num_gpus for each in arrived)
    assert asked / (arrived[-1].t * 16) == pytest.approx(0.8, rel=0.08)


def test_a_row_of_a_trace_keeps_its_arrival_width_and_tenant() -> None:
    rows = [
        TaskArrived(10.0 * i, replace(task(f"r{i}", [job(f"r{i}", 9, 1)], 1 + i), tenant="ann"))
        for i in range(6)
    ]
    tuned = retune(rows, PAPER_MIX, seed=3)
    for row, found in zip(rows, tuned, strict=True):
        assert (found.t, found.task.id, found.task.tenant) == (row.t, row.task.id, "ann")
        assert found.task.num_gpus == row.task.num_gpus
        needed = {m.backbone: m.num_gpus for m in PAPER_MIX.models}[found.task.backbone]
        assert needed <= row.task.num_gpus
        assert len(found.task.jobs) in (60, 64)
    assert retune(rows[3:], PAPER_MIX, seed=3) == tuned[3:]
    later = [replace(row, t=row.t + 5.0) for row in rows]
    assert [r.task for r in retune(later, PAPER_MIX, seed=3)] == [each.task for each in tuned]
    assert retune(rows, PAPER_MIX, seed=4) != tuned


def test_a_generated_workload_runs_on_a_profiled_machine() -> None:
    profile = StepProfile(read_profile(SHIPPED))
    durations = TaskDurations(profile, profile.memory_model)
    arrived = arrivals_at_load(
        SMALL, Poisson(), count=4, seed=0, seconds=durations.seconds, num_gpus=2, load=0.7
    )
    tasks = [each.task for each in arrived]
    workload = profiled(Workload(arrivals=arrived, curves=GeneratedCurves(tasks)), profile)
    entries: list[Entry] = []
    play(workload, AltoSettings(), gpus(2), entries.append)
    worst = sum(durations.seconds(each) for each in tasks)
    assert arrived[-1].t < entries[-1].event.t < arrived[-1].t + worst


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Bursty(mean_burst=1.0), "mean_burst must be above 1"),
        (lambda: Recorded((1.0, 1.0)), "times must be two or more moments"),
        (lambda: replace(PAPER_MIX, models=()), "models must be one at least"),
        (lambda: generate(SMALL, Poisson(), count=0, gap_seconds=1.0, seed=0), "count must be"),
        (
            lambda: arrivals_at_load(
                SMALL, Poisson(), count=1, seed=0, seconds=lambda t: 1.0, num_gpus=1, load=0.0
            ),
            "load must be above 0",
        ),
    ],
)
def test_what_cannot_be_generated_is_named(make: object, fault: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=fault):
        make()
