"""CP-SAT as an improver of plans: never worse, exact where the problem is small, repeatable."""

import random
from itertools import permutations, product

import pytest

from alto_policy.placement.on_kinds import Lanes, OnKinds, schedule_on_kinds
from alto_policy.placement.plans import Item, Objective, Pool, list_rule, makespan
from alto_policy.types import TaskId
from alto_runs.cpsat import CpSat

pytest.importorskip("ortools", reason="the extra `placement` is not installed")

POOL = Pool(5, ((3.0, 3),))
ITEMS = [
    Item(TaskId(f"t{i}"), width, seconds)
    for i, (width, seconds) in enumerate(
        [(3, 7.0), (2, 9.0), (5, 4.0), (4, 6.0), (1, 8.0), (6, 3.0)]
    )
]
SOLVER = CpSat(limit=1.0)


def test_a_small_problem_is_solved() -> None:
    order = list_rule(ITEMS, Objective.MAKESPAN)
    best = min(makespan(each, ITEMS, POOL) for each in permutations(range(len(ITEMS))))
    found = SOLVER(ITEMS, POOL, order)
    assert best < makespan(order, ITEMS, POOL)
    assert makespan(found, ITEMS, POOL) == pytest.approx(best)
    assert found == SOLVER(ITEMS, POOL, order)


def test_nothing_to_improve() -> None:
    assert SOLVER(ITEMS[:1], POOL, (0,)) == (0,)
    assert SOLVER([], POOL, ()) == ()


def ends(
    order: tuple[int, ...], kinds: tuple[int | None, ...], times: list[OnKinds], lanes: Lanes
) -> float:
    only = [on.only(kind) for on, kind in zip(times, kinds, strict=True)]
    return max(slot.end for slot in schedule_on_kinds(order, KINDS_ITEMS, only, lanes))


KINDS_ITEMS = [Item(TaskId(f"t{i}"), width, 1.0) for i, width in enumerate((1, 2, 1, 1, 2))]
NONE = (None,) * len(KINDS_ITEMS)


@pytest.mark.parametrize("seed", range(8))
def test_a_small_problem_on_several_kinds_is_solved(seed: int) -> None:
    """As well as the best of all orders, each task on every kind that it may be on."""
    dice = random.Random(seed)
    lanes = [[0.0, float(dice.randint(0, 6))], [0.0, 0.0, float(dice.randint(0, 9))]]
    times = [
        OnKinds(tuple((kind, float(dice.randint(2, 30))) for kind in dice.choice([(0, 1), (1,)])))
        for _ in KINDS_ITEMS
    ]
    choices = list(product(*[[kind for kind, _ in on.seconds] for on in times]))
    orders = list(permutations(range(len(times))))
    best = min(ends(order, kinds, times, lanes) for order in orders for kinds in choices)
    worst = max(orders, key=lambda order: ends(order, NONE, times, lanes))
    order, kinds = SOLVER.on_kinds(KINDS_ITEMS, times, lanes, worst, NONE)
    assert ends(tuple(order), tuple(kinds), times, lanes) == pytest.approx(best)
    assert (order, kinds) == SOLVER.on_kinds(KINDS_ITEMS, times, lanes, worst, NONE)


def test_the_last_choice_of_kinds_is_a_hint() -> None:
    """Where nobody ends first the whole may end sooner; without a search it is still known."""
    lanes = [[0.0], [0.0]]
    items = [Item(TaskId(name), 1, 1.0) for name in "ab"]
    times = [OnKinds(((0, 10.0), (1, 11.0))), OnKinds(((0, 10.0), (1, 99.0)))]
    idle = CpSat(limit=1e-9)
    assert idle.on_kinds(items, times, lanes, (0, 1), (None, None)) == ((0, 1), [None, None])
    assert idle.on_kinds(items, times, lanes, (0, 1), (1, 0)) == ((0, 1), (1, 0))
    assert SOLVER.on_kinds(items, times, lanes, (0, 1), (None, None))[1] == [1, 0]


def test_on_one_kind_of_two_it_is_as_on_one_kind() -> None:
    lanes = [[0.0] * POOL.free + [3.0] * 3, [0.0] * 9]
    times = [OnKinds(((0, item.seconds),)) for item in ITEMS]
    order = list_rule(ITEMS, Objective.MAKESPAN)
    found, _ = SOLVER.on_kinds(ITEMS, times, lanes, order, (None,) * len(ITEMS))
    slots = schedule_on_kinds(found, ITEMS, times, lanes)
    alike = makespan(SOLVER(ITEMS, POOL, order), ITEMS, POOL)
    assert max(slot.end for slot in slots) == pytest.approx(alike)


def test_a_gang_of_several_kinds_is_placed() -> None:
    """It needs all three, so that the others go before it side by side, and not one after it."""
    lanes = [[0.0], [0.0, 0.0]]
    items = [Item(TaskId(name), width, 1.0) for name, width in (("a", 3), ("b", 1), ("c", 1))]
    both = OnKinds(((0, 4.0), (1, 4.0)))
    times = [OnKinds(((0, 5.0), (1, 5.0)), together=5.0), both, both]
    order, kinds = SOLVER.on_kinds(items, times, lanes, (1, 0, 2), (None,) * 3)
    only = [on.only(kind) for on, kind in zip(times, kinds, strict=True)]
    assert kinds[0] is None
    assert max(slot.end for slot in schedule_on_kinds(order, items, only, lanes)) == 9.0
