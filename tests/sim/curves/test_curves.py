import math

import pytest

from alto_policy.events import LossReported
from alto_policy.runlog import Entry
from alto_policy.types import JobId
from alto_runs.errors import UserError
from alto_sim.curves.losses import Losses, RecordedCurves
from tests.sim.cases import job


def recorded(*points: tuple[int, float]) -> RecordedCurves:
    reports = [LossReported(9.0, JobId("a"), step, loss, loss + 1) for step, loss in points]
    return RecordedCurves.of_log([Entry(report, ()) for report in reports])


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
    with pytest.raises(UserError, match=r"job 'b' has not reported.*; simulate the trace"):
        recorded((2, 5.0)).losses(job("b", 8, 4), 2)
