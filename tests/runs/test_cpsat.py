"""CP-SAT as an improver of plans: never worse, exact where the problem is small, repeatable."""

from itertools import permutations

import pytest

from alto_policy.placement import Item, Objective, Pool, list_rule, makespan
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
