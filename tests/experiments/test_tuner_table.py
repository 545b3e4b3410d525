"""The table of the tuners, which another environment makes, is of the grids that lie here."""

import numpy as np
import pytest

from alto_policy.policies.alto import AltoSettings
from experiments.curve_sets import CurveSet, by_seed, recorded_sets
from experiments.judging import judge
from experiments.past_tuners import read_results
from experiments.table_backend import Arrival, play_policy

SETS = [curves for group in by_seed(recorded_sets()) for curves in group]


def budget_and_regret(curves: CurveSet) -> tuple[float, float]:
    order = [int(row) for row in np.random.default_rng(0).permutation(len(curves.task.jobs))]
    found = judge(curves, play_policy(curves, AltoSettings(), Arrival.LOCKSTEP, order))
    return round(found.budget, 6), round(found.regret, 6)


@pytest.mark.parametrize("curves", SETS, ids=lambda curves: curves.origin.split("/")[2])
def test_its_rows_are_of_the_grid_as_it_is_recorded_now(curves: CurveSet) -> None:
    """Where it is not: `make tuners`."""
    told = [
        (one.budget, one.regret)
        for one in read_results()
        if (one.task, one.rule, one.order) == (curves.name, "ours: alto", 0)
        and one.arrival is Arrival.LOCKSTEP
    ]
    assert budget_and_regret(curves) in told


def test_it_has_no_other_recorded_task() -> None:
    names = {one.task for one in read_results() if not one.is_generated}
    assert names == {curves.name for curves in SETS}
