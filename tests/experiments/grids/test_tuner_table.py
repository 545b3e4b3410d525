"""The table of the tuners, which another environment makes, is of the grids that lie here."""

import pytest

from alto_policy.policies import SETTINGS, Settings
from experiments.grids.curve_sets import CurveSet, by_seed, other_grids, recorded_sets
from experiments.grids.judging import judge
from experiments.grids.table_backend import Arrival, play_policy
from experiments.tuners.compare import order_of
from experiments.tuners.results import read_results

SETS = [curves for group in by_seed(recorded_sets()) for curves in group]


def budget_and_regret(curves: CurveSet, settings: Settings) -> tuple[float, float]:
    play = play_policy(curves, settings, Arrival.LOCKSTEP, order_of(curves, 0))
    found = judge(curves, play)
    return round(found.budget, 6), round(found.regret, 6)


@pytest.mark.parametrize("name", ["alto", "alto+"])
@pytest.mark.parametrize(
    "curves", [*SETS, *other_grids()], ids=lambda curves: "-".join(curves.origin.split("/")[1:3])
)
def test_its_rows_are_of_the_grid_and_the_rule_as_they_are_now(curves: CurveSet, name: str) -> None:
    """Where the grid is not: `make tuners`; the rule: `experiments.tuners.compare --ours`."""
    told = [
        (one.budget, one.regret)
        for one in read_results()
        if (one.task, one.rule, one.order) == (curves.name, f"ours: {name}", 0)
        and one.arrival is Arrival.LOCKSTEP
    ]
    assert budget_and_regret(curves, SETTINGS[name]()) in told


def test_it_has_no_other_recorded_task() -> None:
    for kind, sets in (("recorded", SETS), ("other", other_grids())):
        names = {one.task for one in read_results() if one.kind == kind}
        assert names == {curves.name for curves in sets}
