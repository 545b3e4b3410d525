import math

import pytest

from experiments.exhibits.past_tuners import check_played, no_worse
from experiments.grids.table_backend import Arrival
from experiments.tuners.compare import play_rule
from experiments.tuners.results import Result, chosen_settings
from experiments.tuners.rule import Patience, TrainAll
from tests.experiments.tables import grid

CURVES = grid([[3, 2, 2, 2], [3, 4, 4, 1], [5, math.nan, 1, 1]])


def result(rule: str, setting: str, budget: float, regret: float, task: str = "a") -> Result:
    return Result(
        task=task,
        kind="recorded",
        rule=rule,
        setting=setting,
        arrival=Arrival.LOCKSTEP,
        order=0,
        budget=budget,
        regret=regret,
        top_kept=1.0,
        false_kills=0,
        time_to_best=0.5,
    )


def test_a_loss_that_is_no_number_ends_a_job_whoever_decides() -> None:
    play = play_rule(CURVES, TrainAll(), Arrival.SEQUENTIAL, (2, 1, 0))
    assert play.rows == (2, 2, 1, 1, 1, 1, 0, 0, 0, 0)
    assert play.columns == (0, 1, 0, 1, 2, 3, 0, 1, 2, 3)


def test_jobs_go_in_lockstep_until_they_are_stopped() -> None:
    play = play_rule(CURVES, Patience(2), Arrival.LOCKSTEP, (0, 1, 2))
    assert list(zip(play.rows, play.columns, strict=True)) == [
        *((0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (0, 3))
    ]


def test_a_setting_is_chosen_within_the_budget_of_alto_on_the_tasks_given() -> None:
    results = [
        result("ours: alto", "", 0.25, 0.0),
        *(result("peer", "dear", 0.3, 0.0), result("peer", "cheap", 0.1, 0.02)),
        *(result("peer", "good", 0.2, 0.01), result("peer", "good", 0.9, 0.0, task="b")),
        *(result("costly", "less", 0.5, 0.1), result("costly", "more", 0.6, 0.0)),
    ]
    assert chosen_settings(results, {"a"}) == {"ours: alto": "", "peer": "good", "costly": "less"}


@pytest.mark.parametrize(
    ("budget", "regret", "expected"),
    [(0.2, 0.01, True), (0.2, 0.0105, True), (0.21, 0.01, False), (0.1, 0.012, False)],
)
def test_no_worse_is_in_budget_and_in_regret(budget: float, regret: float, expected: bool) -> None:
    ours, theirs = [result("x", "", budget, regret)], [result("y", "", 0.2, 0.01)]
    assert no_worse(ours, theirs) is expected
    assert no_worse(ours, theirs, noise=0.0) is (expected and regret <= 0.01)


def test_a_grid_that_no_tuner_has_played_is_told() -> None:
    check_played([result("x", "", 1.0, 0.0, task="t")], [CURVES])
    with pytest.raises(SystemExit, match="no plays of t: `make tuners` comes before"):
        check_played([result("x", "", 1.0, 0.0, task="another")], [CURVES, CURVES])
