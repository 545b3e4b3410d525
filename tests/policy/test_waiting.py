"""Which waiting task is next, and which GPUs it gets."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alto_policy.estimates import declared_seconds
from alto_policy.gangs import Gangs
from alto_policy.policies.gavel import fair_share
from alto_policy.queue import TaskQueue
from alto_policy.types import Gpu, GpuId, Hyperparameters, Job, JobId, Kinds
from tests.policy.cases import job, task

NODES = tuple(Gpu(id=GpuId(i), kind="toy", node=f"n{i // 4}") for i in range(8))
MIXED = tuple(Gpu(id=GpuId(i), kind="big" if i < 3 else "small") for i in range(8))
ROWS = st.tuples(  # width, key, kinds
    st.integers(1, 7),
    st.integers(0, 3),
    st.sampled_from([None, ("small",), ("big", "small"), ("small", "big"), ()]),
)


def ids(*numbers: int) -> tuple[GpuId, ...]:
    return tuple(GpuId(number) for number in numbers)


@pytest.mark.parametrize("gpus", [NODES, MIXED], ids=["one kind", "two"])
@given(st.lists(ROWS, max_size=12), st.sets(st.integers(0, 7)))
def test_the_queue_is_a_scan_in_order(
    gpus: tuple[Gpu, ...], rows: list[tuple[int, int, Kinds]], numbers: set[int]
) -> None:
    """Against sorting the rows and taking whatever fits."""
    gangs, left = Gangs(gpus, same_node=False), ids(*sorted(numbers))
    tasks = [
        replace(task(f"t{i}", [job(f"j{i}")], width), kinds=kinds)
        for i, (width, _, kinds) in enumerate(rows)
    ]
    queue = TaskQueue()
    for each, (_, key, _) in zip(tasks, rows, strict=True):
        queue.add(each, key)
    ordered = [tasks[i] for i in sorted(range(len(rows)), key=lambda i: rows[i][1])]
    expected = [each.id for each, _ in gangs.found(left, ordered)]
    popped: list[str] = []
    free = left
    while (first := queue.pop(free, gangs)) is not None:
        popped.append(first.id)
        _, free = gangs.take(free, first.num_gpus, first.kinds)
    assert popped == expected


def test_a_task_that_returns_keeps_its_place() -> None:
    queue = TaskQueue()
    first, second = (task(name, [job(name)]) for name in "ab")
    queue.add(first, 0.0)
    queue.add(second, 0.0)
    assert queue.pop((), None) == first
    queue.add(first, 0.0)
    assert queue.pop((), None) == first


@pytest.mark.parametrize(
    ("free", "width", "gang"),
    [
        pytest.param(ids(0, 1, 2, 3, 6, 7), 2, ids(6, 7), id="the fullest node"),
        pytest.param(ids(0, 1, 2, 3, 6, 7), 3, ids(0, 1, 2), id="the only node with room"),
        pytest.param(ids(0, 1, 6, 7), 2, ids(0, 1), id="the first of equals"),
        pytest.param(ids(0, 1, 6, 7), 3, None, id="nowhere"),
    ],
)
def test_a_gang_on_one_node(
    free: tuple[GpuId, ...], width: int, gang: tuple[GpuId, ...] | None
) -> None:
    gangs = Gangs(NODES, same_node=True)
    assert gangs.fits(free, width, None) is (gang is not None)
    if gang is not None:
        rest = tuple(gpu for gpu in free if gpu not in gang)
        assert gangs.take(free, width, None) == (gang, rest)
    assert gangs.can_hold(4, None)
    assert not gangs.can_hold(5, None)
    widest = gangs.widths(free, None).alone
    assert gangs.fits(free, widest, None)
    assert not gangs.fits(free, widest + 1, None)


def test_a_gang_anywhere_takes_the_lowest() -> None:
    gangs = Gangs(NODES, same_node=False)
    assert gangs.take(ids(1, 3, 6), 2, None) == (ids(1, 3), ids(6))
    assert gangs.can_hold(8, None)
    assert not gangs.can_hold(9, None)


@pytest.mark.parametrize(
    ("widths", "num_gpus", "share"),
    [
        ([1, 1], 4, math.inf),
        ([4, 4], 4, 2.0),
        ([1, 8, 8], 9, 4.0),
        ([1, 2, 8, 8], 8, 2.5),
        ([1, 1, 1, 1], 2, 0.5),
    ],
)
def test_fair_share(widths: Sequence[int], num_gpus: int, share: float) -> None:
    assert fair_share(widths, num_gpus) == share
    assert sum(min(width, share) for width in widths) == min(num_gpus, sum(widths))


def test_declared_seconds() -> None:
    chosen = Hyperparameters(accumulation=3)
    jobs = [Job(id=JobId(f"j{i}"), hyperparameters=chosen, steps=10, reports=1) for i in range(4)]
    assert declared_seconds(task("t", jobs)) == 120
    assert declared_seconds(task("t", jobs, num_gpus=2)) == 60
    assert declared_seconds(task("t", jobs[:1], num_gpus=8)) == 30
