import math

import pytest

from alto_policy.rungs import fraction_trained, has_reached, loss_at, rungs_from
from tests.policy.cases import job, report


@pytest.mark.parametrize(
    ("grace", "eta", "rungs"),
    [
        pytest.param(0.25, 2, (0.25, 0.5), id="the whole is no rung"),
        pytest.param(0.3, 2, (0.3, 0.6), id="beyond the whole"),
        pytest.param(0.5, 4, (0.5,), id="one rung"),
    ],
)
def test_rungs(grace: float, eta: float, rungs: tuple[float, ...]) -> None:
    assert rungs_from(grace, eta) == rungs


@pytest.mark.parametrize("percent", [7, 14, 28, 29, 55, 57, 58])
def test_a_fraction_is_reached_by_its_own_step(percent: int) -> None:
    """0.07 * 100 is 7.000000000000001; a job of 100 steps has reached 0.07 after step 7."""
    spec = job("a", steps=100)
    assert fraction_trained(report("a", percent, 1.0), spec) == percent / 100
    assert has_reached([report("a", percent, 1.0)], spec, percent / 100)
    assert not has_reached([report("a", percent - 1, 1.0)], spec, percent / 100)


def test_nothing_is_reached_without_a_report() -> None:
    assert not has_reached([], job("a"), 0.0)


@pytest.mark.parametrize(
    ("rung", "loss"),
    [(0.1, 5.0), (0.2, 4.0), (0.25, 3.0), (0.3, 3.0), (0.4, math.inf)],
)
def test_loss_is_that_of_the_first_report_at_or_after_the_rung(rung: float, loss: float) -> None:
    history = [report("a", 2, 5.0), report("a", 4, 4.0), report("a", 6, 3.0)]
    history.append(report("a", 8, math.nan))
    assert loss_at(history, job("a"), rung) == loss
