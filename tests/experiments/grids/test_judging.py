import math

import numpy as np
import pytest

from experiments.grids.judging import (
    judge,
    judge_random,
    oracle,
    random_play,
    spearman,
    top_quarter,
)
from experiments.grids.table_backend import Play
from tests.experiments.tables import grid

# The last job wins, late; the second is best half-way.
CROSSING = grid([[4, 4, 4, 4], [3, 2, 2.5, 3], [5, 5, 5, math.nan], [6, 5, 3, 1]])


def test_a_whole_grid_costs_all_and_loses_nothing() -> None:
    rows, columns = zip(*[(row, column) for row in range(4) for column in range(4)], strict=True)
    found = judge(CROSSING, Play(rows, columns))
    assert (found.budget, found.regret, found.top_kept, found.false_kills) == (1.0, 0.0, 1.0, 0)
    assert found.time_to_best == 1.0


def test_a_winner_that_was_stopped_is_a_false_kill() -> None:
    play = Play((0, 1, 2, 3, 1, 3, 3), (0, 0, 0, 0, 1, 1, 2))
    found = judge(CROSSING, play)
    assert found.budget == 7 / 16
    assert found.regret == pytest.approx(1.0)  # 2 in place of 1
    assert found.top_kept == 0.0
    assert found.false_kills == 1
    assert found.time_to_best == 5 / 16


def test_a_job_stopped_behind_its_best_report_is_none() -> None:
    play = Play((1, 1, 3, 3, 3, 3), (0, 1, 0, 1, 2, 3))
    assert judge(CROSSING, play).false_kills == 0


def test_budgets_count_samples() -> None:
    curves = grid([[1, 1], [2, 2]], batch_sizes=(1, 3))
    assert judge(curves, Play((1,), (0,))).budget == 3 / 8


def test_the_oracle_trains_the_best_job_to_its_best_report() -> None:
    assert oracle(CROSSING) == Play((3,) * 4, (0, 1, 2, 3))


@pytest.mark.parametrize("seed", range(5))
def test_random_jobs_stay_within_the_budget(seed: int) -> None:
    budget = judge(CROSSING, random_play(CROSSING, 0.4, seed)).budget
    assert 0.3 < budget <= 0.4


def test_random_jobs_are_judged_in_the_mean_of_all_draws() -> None:
    """Of the four jobs one is drawn: their losses are 4, 2, 5 and 1."""
    found = judge_random(CROSSING, 0.25, range(2000))
    assert found.budget == pytest.approx(0.25)
    assert found.regret == pytest.approx((3 + 1 + 4 + 0) / 4, abs=0.1)
    assert found.false_kills == pytest.approx((2 + 1 + 3 + 0) / 4, abs=0.1)


def test_rank_correlation_shares_ranks_among_equals() -> None:
    rising = np.array([1.0, 2.0, 3.0, 4.0])
    assert spearman(rising, rising**3) == pytest.approx(1.0)
    assert spearman(rising, -rising) == pytest.approx(-1.0)
    tied = np.array([1.0, 1.0, 2.0, 3.0])  # of ranks 1.5, 1.5, 3, 4
    assert spearman(rising, tied) == pytest.approx(4.5 / math.sqrt(5 * 4.5))


def test_the_best_quarter_is_rounded_up() -> None:
    assert sorted(top_quarter(np.array([5.0, 1.0, 4.0, 2.0, 3.0]))) == [1, 3]
