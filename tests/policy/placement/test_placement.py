"""Orders of rigid tasks: never over-committed, near the bound, the same each time."""

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alto_policy.placement.plans import (
    Item,
    Objective,
    Pool,
    bound,
    improve,
    list_rule,
    makespan,
    schedule,
    starts_now,
)
from alto_policy.placement.widening import mold
from alto_policy.types import TaskId

SECONDS = st.integers(1, 60).map(float)


def items_of(*sizes: tuple[int, float]) -> list[Item]:
    return [Item(TaskId(f"t{i}"), width, seconds) for i, (width, seconds) in enumerate(sizes)]


def many(count: int, widths: tuple[int, ...] = (1, 1, 1, 2, 4, 8)) -> list[Item]:
    """Durations over two decades, in an order without a pattern."""
    return items_of(
        *(
            (widths[i * 7 % len(widths)], 10 ** (1 + 2 * (i * 0.6180339887 % 1)))
            for i in range(count)
        )
    )


@st.composite
def problems(draw: st.DrawFn, most: int = 9) -> tuple[list[Item], Pool]:
    gpus = draw(st.integers(1, 8))
    held = draw(st.lists(st.tuples(SECONDS, st.integers(1, 3)), max_size=3))
    pool = Pool(gpus, tuple(held))
    sizes = draw(st.lists(st.tuples(st.integers(1, pool.gpus), SECONDS), max_size=most))
    return items_of(*sizes), pool


@given(problems(), st.sampled_from(Objective))
def test_no_schedule_takes_more_gpus_than_there_are(
    problem: tuple[list[Item], Pool], objective: Objective
) -> None:
    items, pool = problem
    order = improve(items, pool, objective=objective, nodes=50).order
    starts = schedule(order, items, pool)
    assert sorted(order) == list(range(len(items)))
    for now in starts:
        used = sum(
            item.width
            for item, start in zip(items, starts, strict=True)
            if start <= now < start + item.seconds
        )
        used += sum(width for until, width in pool.releases if now < until)
        assert used <= pool.gpus
    assert makespan(order, items, pool) >= bound(items, pool) * (1 - 1e-12)


@given(problems())
def test_what_starts_now_is_what_the_schedule_starts(problem: tuple[list[Item], Pool]) -> None:
    items, pool = problem
    order = list_rule(items, Objective.MAKESPAN)
    starts = schedule(order, items, pool)
    assert starts_now(order, items, pool) == [i for i in order if starts[i] == 0.0]


@pytest.mark.parametrize("objective", Objective)
@settings(max_examples=40)
@given(problems(most=4))
def test_small_problems_are_solved(objective: Objective, problem: tuple[list[Item], Pool]) -> None:
    """As well as the best of all orders can do."""
    items, pool = problem

    def cost(order: tuple[int, ...]) -> float:
        starts = schedule(order, items, pool)
        ends = [start + item.seconds for start, item in zip(starts, items, strict=True)]
        whole = objective is Objective.MAKESPAN
        return max(ends, default=0.0) if whole else sum(ends) / max(1, len(ends))

    best = min(cost(order) for order in permutations(range(len(items))))
    assert improve(items, pool, objective=objective, nodes=800).cost == pytest.approx(best)


def test_the_motivating_example() -> None:
    """Tasks of 5, 2 and 3 hours on two GPUs: shortest first takes 7, longest first 5 (figure 5)."""
    items = items_of((1, 5.0), (1, 2.0), (1, 3.0))
    assert makespan((1, 2, 0), items, Pool(2)) == 7
    assert improve(items, Pool(2), nodes=0).cost == 5


@pytest.mark.parametrize(("count", "gpus"), [(60, 8), (60, 16), (150, 16)])
def test_a_bounded_search_comes_within_a_per_cent_of_the_bound(count: int, gpus: int) -> None:
    items = many(count)
    found = improve(items, Pool(gpus), nodes=20_000)
    assert found.cost <= 1.01 * bound(items, Pool(gpus))
    assert found == improve(items, Pool(gpus), nodes=20_000)


def test_a_search_is_never_worse_than_its_hint() -> None:
    items = many(40, widths=(1, 3, 5))
    hint = improve(items, Pool(8), nodes=20_000)
    again = improve(
        items, Pool(8), nodes=0, hints=[list_rule(items, Objective.MAKESPAN), hint.order]
    )
    assert again == hint
    assert hint.cost < makespan(list_rule(items, Objective.MAKESPAN), items, Pool(8))


def test_a_reservation_keeps_the_gpus_of_the_first_that_waits() -> None:
    """Four GPUs of which one is busy for 10 s; the wide one waits, and only what is over fits."""
    pool = Pool(3, ((10.0, 1),))
    items = items_of((4, 100.0), (1, 10.0), (1, 11.0), (2, 5.0))
    order = (0, 1, 2, 3)
    assert starts_now(order, items, pool) == [1, 2]
    assert starts_now(order, items, pool, reserve=True) == [1, 3]


def test_a_reservation_leaves_spare_gpus_to_long_tasks() -> None:
    pool = Pool(2, ((10.0, 3),))
    items = items_of((4, 100.0), (1, 50.0), (1, 50.0))
    assert starts_now((0, 1, 2), items, pool, reserve=True) == [1]  # one of five is over


def test_a_task_wider_than_the_pool_is_named() -> None:
    with pytest.raises(ValueError, match="width must be at most 4, got 5"):
        schedule((0,), items_of((5, 1.0)), Pool(4))


def test_bounds() -> None:
    assert bound(items_of((1, 4.0), (1, 4.0), (1, 4.0)), Pool(2)) == 6  # area
    assert bound(items_of((1, 9.0), (1, 1.0)), Pool(2)) == 9  # the longest
    assert bound(items_of((2, 4.0), (2, 4.0)), Pool(3)) == 8  # not side by side
    assert bound(items_of((2, 4.0)), Pool(1, ((3.0, 1),))) == 7  # not before they are free
    assert bound([], Pool(2)) == 0


def split(seconds: float, share: float = 0.0) -> Callable[[int], float]:
    """A task of which a share gains nothing from GPUs."""
    return lambda width: seconds * (share + (1 - share) / width)


def test_widths_are_chosen_to_end_early() -> None:
    tasks = [split(800.0), *(split(50.0) for _ in range(4))]
    chosen = mold(tasks, (1, 2, 4, 8), 8)
    items = items_of(*chosen)
    narrow = items_of(*((1, task(1)) for task in tasks))
    ended = improve(items, Pool(8), nodes=2_000).cost
    assert ended < 0.3 * makespan(list_rule(narrow, Objective.MAKESPAN), narrow, Pool(8))
    assert chosen[0][0] > chosen[1][0]


def test_what_gains_nothing_stays_narrow() -> None:
    assert mold([split(100.0, share=1.0)] * 8, (1, 2, 4), 4) == [(1, 100.0)] * 8


def test_widths_must_fit_the_cluster() -> None:
    with pytest.raises(ValueError, match="widths must hold one from 1 to 2"):
        mold([split(1.0)], (4,), 2)


def test_gpus_that_come_free_at_once_are_given_out_at_once() -> None:
    pool = Pool(0, ((3.0, 1), (3.0, 1)))
    assert schedule((0, 1), items_of((2, 5.0), (1, 5.0)), pool) == [3.0, 8.0]
