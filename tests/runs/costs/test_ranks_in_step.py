"""Passes of GPUs that share one backbone, in step; held against measured ones where there are."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import pytest

from alto_policy.events import TaskArrived
from alto_policy.memory import load_of
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId, TokenCounts
from alto_runs.costs.durations import TaskDurations
from alto_runs.costs.ranks_in_step import RanksInStep
from alto_runs.costs.sharded import Sharded
from alto_runs.costs.step_profile import StepProfile
from alto_runs.profile import GangRow, read_profile, shipped_profile
from alto_sim.cluster.backend import SimBackend
from alto_sim.curves.generated import GeneratedCurves
from alto_sim.workloads.workload import DEFAULT_LATENCIES, Workload
from tests.sim.cases import gpus, play

LARGE = "Llama-3.1-70B"
MOST_TOKENS = {"Llama-3.2-1B": 16384, "Llama-3.1-8B": 8192, "Qwen2.5-32B": 2048}


@pytest.fixture(scope="module")
def kept() -> StepProfile:
    return StepProfile(read_profile(shipped_profile()))


@pytest.fixture(scope="module")
def again() -> StepProfile:
    return StepProfile(read_profile(shipped_profile()), recompute=True)


def jobs_of(*batches: int, rank: int = 16, steps: int = 40, name: str = "job") -> tuple[Job, ...]:
    return tuple(
        Job(
            id=JobId(f"{name}-{number}"),
            hyperparameters=Hyperparameters(rank=rank, batch_size=batch),
            steps=steps,
            reports=1,
        )
        for number, batch in enumerate(batches)
    )


def a_task(jobs: Sequence[Job], backbone: str = LARGE, num_gpus: int = 4) -> Task:
    return Task(
        id=TaskId("task"),
        jobs=tuple(jobs),
        backbone=backbone,
        max_length=256,
        num_gpus=num_gpus,
    )


def predicted(row: GangRow, kept: StepProfile) -> float:
    """The step of a measured point, in the passes in which it was made."""
    jobs = jobs_of(*[row.batch_size] * row.jobs, rank=row.rank)
    task = Task(
        id=TaskId("task"),
        jobs=jobs,
        backbone=row.model.name,
        max_length=row.length,
        num_gpus=row.gpus,
    )
    at_once = max(1, MOST_TOKENS[row.model.name] // (row.batch_size * row.length))
    each = [jobs[number :: row.gpus] for number in range(row.gpus)]
    ranks = RanksInStep(kept, records=row.is_replayed, reads_peers=False)
    return sum(
        ranks.pass_seconds([mine[first : first + at_once] for mine in each], task)
        for first in range(0, len(each[0]), at_once)
    )


@pytest.mark.parametrize("name", ["h100x4.jsonl", "h100x2.jsonl"])
def test_measured_steps_of_shards_are_told(name: str, kept: StepProfile) -> None:
    """No factor is fitted to them; the 32B backbone was measured in shards alone."""
    rows = [
        row
        for row in read_profile(shipped_profile(name))
        if isinstance(row, GangRow) and row.method == "adapter-parallel"
    ]
    errors = [abs(predicted(row, kept) / row.seconds - 1) for row in rows]
    assert median(errors) < 0.12
    assert max(errors) < 0.35


def test_measured_steps_of_recorded_passes_are_told(kept: StepProfile) -> None:
    rows = [
        row
        for row in read_profile(shipped_profile("h100x2-recorded.jsonl"))
        if isinstance(row, GangRow) and row.method == "gathered"
    ]
    assert len(rows) == 4
    assert all(row.is_replayed for row in rows)
    assert max(abs(predicted(row, kept) / row.seconds - 1) for row in rows) < 0.25


def test_a_pass_is_as_long_as_that_of_the_busiest(kept: StepProfile) -> None:
    one, many = jobs_of(1, name="one"), jobs_of(*[8] * 8)
    task, ranks = a_task((*one, *many)), RanksInStep(kept)
    alone = ranks.pass_seconds((many,), task)
    assert ranks.pass_seconds((one,), task) < 0.5 * alone
    assert ranks.pass_seconds((many, one), task) == pytest.approx(alone)


def test_a_pass_of_few_tokens_takes_what_its_gathers_take(
    kept: StepProfile, again: StepProfile
) -> None:
    """Two of all layers: launched exchanges would take longer, recorded ones take less."""
    few, many = jobs_of(1, name="few"), jobs_of(*[8] * 8)
    task = a_task((*few, *many))
    layers = 2 * kept.shape_of(task).block_parameters
    gathers = 2 * layers * 3 / 4 / 3.2e11
    launched = RanksInStep(kept, records=False)
    assert gathers < launched.pass_seconds((few,), task) < 1.25 * gathers
    assert RanksInStep(again).pass_seconds((few,), task) > 1.2 * gathers
    assert RanksInStep(kept).pass_seconds((few,), task) < 0.5 * gathers
    assert RanksInStep(kept).pass_seconds((many,) * 4, task) > 4 * gathers


def test_activations_are_computed_again_only_where_they_find_no_room(
    kept: StepProfile, again: StepProfile
) -> None:
    """In as few layers as that, as the rank with the least room has it; such passes are launched
    and gather."""
    few, many = jobs_of(1, name="few"), jobs_of(*[8] * 4)
    task, ranks = a_task((*few, *many)), RanksInStep(kept, again)
    memory = ranks.memory_model(task)
    assert memory.keeping == RanksInStep(kept).memory_model(task)
    assert replace(memory, kept=None) == RanksInStep(again).memory_model(task)
    assert ranks.pass_seconds((few,), task) == RanksInStep(kept).pass_seconds((few,), task)
    for jobs in (many[:1], many):
        share = memory.layers_again(load_of(jobs, task.max_length), 80) / 80
        assert 0 < share < 1
        launched, all_again = (
            one.pass_seconds((jobs,), task)
            for one in (RanksInStep(kept, records=False), RanksInStep(again))
        )
        expected = pytest.approx(launched + share * (all_again - launched))
        assert ranks.pass_seconds((jobs,), task) == expected
        assert ranks.pass_seconds((few, jobs), task) == expected


def test_what_is_computed_again_is_launched_though_it_is_small(
    kept: StepProfile, again: StepProfile
) -> None:
    (job,) = jobs_of(1)
    task = a_task((job,))
    roomy = RanksInStep(kept, again).memory_model(task)
    load = load_of((job,), task.max_length)
    half = (roomy.held(load) + roomy.keeping.held(load)) // 2
    ranks = RanksInStep(kept, again, bounded=lambda memory: replace(memory, capacity=half))
    share = ranks.memory_model(task).layers_again(load, 80) / 80
    assert share == pytest.approx(0.5, abs=0.02)
    launched = RanksInStep(kept, records=False).pass_seconds(((job,),), task)
    both = launched, RanksInStep(again).pass_seconds(((job,),), task)
    assert min(both) <= ranks.pass_seconds(((job,),), task) <= max(both)
    assert RanksInStep(kept).pass_seconds(((job,),), task) < 0.5 * min(both)


def test_jobs_of_another_length_are_another_pass(kept: StepProfile) -> None:
    jobs, ranks = jobs_of(8), RanksInStep(kept)
    short, long = a_task(jobs), replace(a_task(jobs), max_length=512)
    assert ranks.pass_seconds((jobs,), short) < ranks.pass_seconds((jobs,), long)
    assert ranks.pass_seconds((jobs,), long) == RanksInStep(kept).pass_seconds((jobs,), long)


def test_what_is_known_of_one_task_is_not_told_of_another(
    kept: StepProfile, again: StepProfile
) -> None:
    """By ranks that were asked of all of them, and by ranks that were asked of none."""
    jobs = jobs_of(64, 8, 1)
    one = a_task(jobs)
    shorter = replace(one, tokens=TokenCounts(per_sample=100.0, validation=3200))
    tasks = [
        one,
        a_task(jobs, num_gpus=8),
        a_task(jobs, "Qwen2.5-32B"),
        replace(one, max_length=512),
        shorter,
        replace(shorter, tokens=TokenCounts(per_sample=100.0, validation=320)),
    ]

    def told(ranks: RanksInStep, task: Task) -> tuple[object, ...]:
        crews = [[jobs[0], jobs[1]], [jobs[2]]]
        passes = ranks.pass_seconds(crews, task), ranks.evaluation_seconds(crews, task)
        return (ranks.memory_model(task), ranks.memory_model(task, 2), *passes)

    asked = RanksInStep(kept, again)
    found = [told(asked, task) for task in tasks]
    assert found == [told(RanksInStep(kept, again), task) for task in tasks]
    assert [told(asked, task) for task in tasks] == found


def test_without_adapter_parallelism_jobs_take_turns(again: StepProfile) -> None:
    jobs = jobs_of(8, 8)
    task = a_task(jobs)
    ranks = RanksInStep(again, adapter_parallel=False)
    one = ranks.pass_seconds((jobs[:1],), task)
    assert ranks.pass_seconds((jobs[:1], jobs[1:]), task) == pytest.approx(2 * one)
    quarter = RanksInStep(again).pass_seconds((jobs_of(2),) * 4, task)
    assert one == pytest.approx(quarter)


def test_evaluations_of_different_ranks_lie_beside_one_another(kept: StepProfile) -> None:
    jobs = jobs_of(1, 1)
    task, ranks = a_task(jobs), RanksInStep(kept)
    one = ranks.evaluation_seconds((jobs[:1],), task)
    assert ranks.evaluation_seconds((jobs,), task) == pytest.approx(2 * one)
    assert one <= ranks.evaluation_seconds((jobs[:1], jobs[1:]), task) < 1.7 * one
    assert ranks.evaluation_seconds(((), ()), task) == 0


def test_a_simulated_gang_goes_in_step(again: StepProfile) -> None:
    """Both jobs at the pace of the larger one, while it is there; a policy believes as much."""
    (large,), (small,) = jobs_of(8, steps=20, name="large"), jobs_of(1)
    task, ranks = a_task((large, small)), RanksInStep(again)
    times, load = Sharded(again, ranks), DEFAULT_LATENCIES.load
    workload = Workload(
        arrivals=(TaskArrived(0.0, task),),
        curves=GeneratedCurves([task]),
        step_time=times,
        latencies=DEFAULT_LATENCIES,
        measured={task.id: times.memory_model(task)},
    )
    entries = play(build(FifoSettings()), SimBackend(workload, gpus(4)), num_gpus=4)
    together, alone = (
        ranks.pass_seconds(rows, task) for rows in (((large,), (small,)), ((small,),))
    )
    evaluation = ranks.evaluation_seconds(((small,),), task)
    assert together > 1.1 * alone
    training = 20 * together + 20 * alone
    assert entries[-1].event.t == pytest.approx(load + training + 2 * evaluation)
    beside = ranks.evaluation_seconds(((large,), (large,)), task)
    believed = TaskDurations(times, times.memory_model, start_seconds=load)
    assert believed.seconds(task) == pytest.approx(load + training + beside)
