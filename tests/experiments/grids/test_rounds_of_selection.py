import math
from collections import Counter
from dataclasses import replace

import pytest

from alto_policy.exits import ExitRules
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings
from experiments.grids.curve_sets import CurveSet, generated_sets
from experiments.grids.judging import judge
from experiments.grids.rounds_of_selection import ALTO, Selection, outcome, reached
from experiments.grids.table_backend import play_policy
from tests.experiments.tables import grid


@pytest.mark.parametrize("curves", generated_sets(2), ids=lambda curves: curves.name)
@pytest.mark.parametrize(
    ("selection", "settings"),
    [
        (ALTO, AltoSettings()),
        *(
            (
                Selection(
                    rounds=rounds,
                    keep=(keep,) * len(rounds),
                    handicap=handicap,
                    rules=ExitRules(gap=gap),
                ),
                AltoPlusSettings(
                    rounds=rounds, keep=keep, handicap=handicap, rules=ExitRules(gap=gap)
                ),
            )
            for rounds, keep, handicap, gap in (
                ((0.05, 0.15), 0.35, 0.0, 0.1),
                ((0.025, 0.075, 0.3), 0.5, 0.03, None),
            )
        ),
    ],
)
def test_the_numerical_model_says_what_the_policy_does(
    curves: CurveSet, selection: Selection, settings: Settings
) -> None:
    play = play_policy(curves, settings)
    played, modelled = judge(curves, play), outcome(curves, selection)
    assert Counter(play.rows) == dict(enumerate(reached(curves, selection)))
    assert modelled.budget == pytest.approx(played.budget, rel=1e-12)
    assert modelled.regret == played.regret
    assert modelled.top_kept == played.top_kept


def test_rounds_leave_fewer_and_fewer() -> None:
    curves = grid([[row + 9 - column for column in range(4)] for row in range(4)])
    ends = reached(curves, Selection(rounds=(0.25, 0.5), keep=(0.75, 0.5)))
    assert ends.tolist() == [4, 4, 2, 1]


def test_a_lost_job_is_stopped_by_its_own_curve() -> None:
    curves = grid([[2, 1, 1, 1], [3, math.nan, math.nan, math.nan]])
    assert reached(curves, Selection(rounds=(0.25,), keep=(1.0,))).tolist() == [4, 2]


def test_a_job_that_its_own_curve_stops_at_a_round_does_not_count_there() -> None:
    curves = grid([[2, 2, 1, 1], [3, 3, 1, 1], [4, 4, 1, 1], [1, math.nan, math.nan, math.nan]])
    ends = reached(curves, Selection(rounds=(0.5,), keep=(1 / 3,)))
    assert ends.tolist() == [4, 2, 2, 2]


def test_the_slope_and_the_margin_change_who_is_kept() -> None:
    falling = [4 - math.log2(column + 1) for column in range(8)]
    curves = grid([[2.5] * 8, falling, [2.6] * 8, [9.0] * 8])
    plain = Selection(rounds=(0.25,), keep=(0.25,))
    assert reached(curves, plain).tolist() == [8, 2, 2, 2]
    assert reached(curves, replace(plain, lookahead=1.0)).tolist() == [2, 8, 2, 2]
    assert reached(curves, replace(plain, margin=0.05)).tolist() == [8, 2, 8, 2]
