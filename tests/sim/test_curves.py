import math

import pytest

from alto_policy.events import LossReported
from alto_policy.runlog import Entry
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.errors import UserError
from alto_sim.curves import Losses, RecordedCurves, SyntheticCurves
from tests.sim.cases import job


def recorded(*points: tuple[int, float]) -> RecordedCurves:
    reports = [LossReported(9.0, JobId("a"), step, loss, loss + 1) for step, loss in points]
    return RecordedCurves([Entry(report, ()) for report in reports])


@pytest.mark.parametrize(
    ("step", "loss", "num_held"),
    [
        pytest.param(2, 5.0, 0, id="recorded"),
        pytest.param(4, 3.0, 0, id="recorded at the end"),
        pytest.param(8, 3.0, 1, id="past the end"),
        pytest.param(3, 5.0, 1, id="between two reports"),
        pytest.param(1, 5.0, 1, id="before the first"),
    ],
)
def test_recorded_losses_are_held(step: int, loss: float, num_held: int) -> None:
    curves = recorded((2, 5.0), (4, 3.0))
    assert curves.losses(job("a", 8, 4), step) == Losses(loss, loss + 1)
    assert curves.num_held == num_held


def test_a_second_report_of_a_step_is_no_news() -> None:
    curves = recorded((2, 5.0), (4, 3.0), (2, 7.0))
    assert curves.losses(job("a", 8, 4), 2) == Losses(5.0, 6.0)


@pytest.mark.parametrize(("step", "due"), [(0, 2), (2, 3), (3, 4), (4, 6), (6, 8), (7, 8)])
def test_a_recorded_breakdown_is_a_report(step: int, due: int) -> None:
    curves = recorded((2, 5.0), (3, math.nan))
    assert curves.report_step(job("a", 8, 4), step) == due


def test_a_job_without_a_record_is_named() -> None:
    with pytest.raises(UserError, match="no losses of job 'b'"):
        recorded((2, 5.0)).losses(job("b", 8, 4), 2)


def tuned(name: str, learning_rate: float, rank: int = 16) -> Job:
    chosen = Hyperparameters(rank=rank, learning_rate=learning_rate)
    return Job(id=JobId(name), hyperparameters=chosen, steps=100, reports=20)


def test_landscape_has_a_best_learning_rate() -> None:
    curves = SyntheticCurves(seed=1)
    low, best, high = (
        curves.losses(tuned("a", learning_rate), 100).val
        for learning_rate in (2e-5, 2e-4, 2e-4 * 10**0.8)
    )
    assert best < low
    assert best < high


def test_landscape_breaks_down_a_decade_above_the_best() -> None:
    assert SyntheticCurves().losses(tuned("a", 3e-3), 50).is_lost
    assert not SyntheticCurves().losses(tuned("a", 1.9e-3), 50).is_lost


def test_landscape_without_learning_stays_where_it_began() -> None:
    curves = SyntheticCurves(start=3.0)
    assert curves.losses(tuned("a", 0.0), 100).train == pytest.approx(3.0, abs=0.21)


def test_high_rank_overfits() -> None:
    curves = SyntheticCurves()
    losses = [curves.losses(tuned("a", 2e-4, rank), 100) for rank in (8, 128)]
    gaps = [each.val / each.train for each in losses]
    assert gaps[0] < 1.1 < gaps[1]


def test_landscape_depends_on_seed_and_job_alone() -> None:
    draws = [
        SyntheticCurves(seed=seed).losses(tuned(name, 2e-4), 50)
        for seed, name in ((0, "a"), (0, "a"), (1, "a"), (0, "b"))
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
