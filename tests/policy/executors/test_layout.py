from dataclasses import replace
from math import isqrt

import pytest

from alto_policy.executors.exchange import PassTokens, ShardedLinears, Way
from alto_policy.executors.layout import Layout, PassCosts, choose_layout, count_whole_layers
from alto_policy.memory import MemoryModel
from alto_policy.types import Hyperparameters, Job, JobId, Task, TaskId

GPUS = 4


def task(batch_sizes: tuple[int, ...]) -> Task:
    jobs = tuple(
        Job(
            id=JobId(f"job-{number}"),
            hyperparameters=Hyperparameters(rank=1, batch_size=batch_size),
            steps=10,
            reports=1,
        )
        for number, batch_size in enumerate(batch_sizes)
    )
    return Task(id=TaskId("task"), jobs=jobs, backbone="b", max_length=10, num_gpus=GPUS)


def memory(fixed: int, max_jobs: int | None = None) -> MemoryModel:
    """Room for 100 bytes; a job takes 10 for each of its sequences."""
    return MemoryModel(capacity=100, fixed=fixed, per_rank=0, per_token=1, max_jobs=max_jobs)


def costs_of(gathering: float) -> PassCosts:
    """A layer's shards come in so many seconds, once forward and once back."""
    received = 3.2e11 * gathering / 2  # bytes, at the rate of gathers in launched passes
    side = isqrt(round(received * GPUS / (GPUS - 1)))
    linears = ShardedLinears(num_gpus=GPUS, layers=3, groups=((side, side),), item_bytes=1)
    return PassCosts(launches=1.0, per_token=0.01, linears=linears, may_travel=False)


def chosen(
    batch_sizes: tuple[int, ...], copies: MemoryModel, shards: MemoryModel, gathering: float
) -> Layout:
    return choose_layout(task(batch_sizes), copies, shards, costs_of(gathering))


@pytest.mark.parametrize(
    ("batch_sizes", "gathering", "expected"),
    [
        pytest.param((1,) * 4, 0.1, Layout.COPIES, id="all fit, and gathering costs"),
        pytest.param((1,) * 4, 0.0, Layout.COPIES, id="nothing between them"),
        pytest.param((1,) * 32, 0.1, Layout.SHARDS, id="more fit, and passes are longer"),
        pytest.param((1,) * 32, 9.0, Layout.COPIES, id="more fit, but gathering takes too long"),
        pytest.param((8, 1, 1, 1), 9.0, Layout.SHARDS, id="the widest job fits in no other way"),
    ],
)
def test_by_room_and_time(batch_sizes: tuple[int, ...], gathering: float, expected: Layout) -> None:
    copies, shards = memory(fixed=80), memory(fixed=20)
    assert chosen(batch_sizes, copies, shards, gathering) is expected


def test_recorded_passes_are_not_launched() -> None:
    """A copy of the backbone records what it trains; shards train more and must launch it."""
    copies, shards = memory(fixed=80), memory(fixed=20)
    costs = costs_of(0.1)
    alone = replace(costs, recorded_alone=20)
    jobs = task((1,) * 32)
    assert choose_layout(jobs, copies, shards, costs) is Layout.SHARDS
    assert choose_layout(jobs, copies, shards, alone) is Layout.COPIES
    together = replace(alone, recorded_together=80)
    recorded = together.linears.gathering_seconds(is_training=True, is_recorded=True)
    assert together.together([80, 0]) == pytest.approx(0.8 + recorded)
    assert together.together([81, 0]) == pytest.approx(0.81 + 1.0 + 0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("reads_peers", "expected"), [(False, Layout.COPIES), (True, Layout.SHARDS)]
)
def test_copies_beside_the_arithmetic_pay_sooner(reads_peers: bool, expected: Layout) -> None:
    """An 8B, 20 or 23 jobs of 1,000 tokens on each GPU."""
    groups = ((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096))
    linears = ShardedLinears(
        num_gpus=GPUS, layers=32, groups=groups, item_bytes=2, reads_peers=reads_peers
    )
    costs = PassCosts.estimated(
        linears, 8_000_000_000, recorded_alone=0, recorded_together=0, recomputes=False
    )
    shards = MemoryModel(capacity=23_000, fixed=0, per_rank=0, per_token=1)
    jobs = replace(task((1,) * 128), max_length=1_000)
    assert choose_layout(jobs, replace(shards, fixed=3_000), shards, costs) is expected


def test_tokens_that_travel_launch_nothing_besides() -> None:
    costs = replace(costs_of(9.0), may_travel=True)
    tokens = PassTokens((1,) * GPUS, (1,) * GPUS)
    way, seconds = costs.linears.cheapest(tokens, is_recorded=False)
    assert way is Way.TRAVELLING
    assert costs.together([1] * GPUS) == pytest.approx(0.01 + seconds)


def test_as_many_jobs_as_may_be_at_once() -> None:
    copies, shards = memory(fixed=80, max_jobs=2), memory(fixed=20, max_jobs=2)
    assert chosen((1,) * 32, copies, shards, 0.1) is Layout.COPIES


def test_the_busiest_gpu_tells_how_long_a_pass_is() -> None:
    """With shards there is room for one more job, but beside another: all others wait for both."""
    copies, shards = memory(fixed=30), memory(fixed=20)
    assert chosen((7, 7, 7, 7, 1), copies, shards, 0.0) is Layout.COPIES


@pytest.mark.parametrize(
    ("num_jobs", "expected"),
    [
        pytest.param(4, 2, id="one on each GPU"),
        pytest.param(5, 2, id="the busiest GPU tells"),
        pytest.param(28, 0, id="all of the room is for jobs"),
        pytest.param(99, 0, id="more than fit at a time"),
    ],
)
def test_layers_that_stay_whole_take_no_room_of_a_job(num_jobs: int, expected: int) -> None:
    assert count_whole_layers(task((1,) * num_jobs), memory(fixed=30), 25) == expected
