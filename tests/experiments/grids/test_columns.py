"""A job of fewer steps than the others have reports reports less often, wherever it is judged."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from alto_policy.events import LossReported
from alto_policy.exits import ExitRules
from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Job
from experiments.grids.columns import column_of, report_in, told_at
from experiments.grids.curve_sets import CurveSet, TableCurves, curve_set, generated_sets
from experiments.grids.judging import judge, report_samples
from experiments.grids.rounds_of_selection import ALTO, Selection, outcome
from experiments.grids.table_backend import Arrival, play_policy
from experiments.tuners.compare import play_rule
from experiments.tuners.rule import Patience, TrainAll
from tests.experiments.tables import grid


def with_few(curves: CurveSet, few: dict[int, int]) -> CurveSet:
    """Jobs of these rows take so many steps, and report after each."""
    jobs = list(curves.task.jobs)
    reports = {job.id: reports_of(curves, row, job) for row, job in enumerate(jobs)}
    for row, steps in few.items():
        size = jobs[row].samples(jobs[row].steps) // steps
        chosen = replace(jobs[row].hyperparameters, batch_size=size)
        jobs[row] = replace(jobs[row], steps=steps, reports=steps, hyperparameters=chosen)
        reports[jobs[row].id] = reports_of(curves, row, jobs[row])
    task = replace(curves.task, jobs=tuple(jobs))
    return curve_set("t", "by hand", task, reports, is_generated=False)


def reports_of(curves: CurveSet, row: int, job: Job) -> list[LossReported]:
    at = [told_at(job, number + 1, curves.num_reports) - 1 for number in range(job.reports)]
    losses = ((float(curves.train[row, n]), float(curves.val[row, n])) for n in at)
    return [
        LossReported(0.0, job.id, job.report_step(number), *each)
        for number, each in enumerate(losses, 1)
    ]


UNEVEN = with_few(grid([[8, 7, 6, 5, 4], [9, 8, 7, 6, 5]]), {1: 2})


def test_a_column_holds_the_first_report_at_or_after_its_share() -> None:
    job = UNEVEN.task.jobs[1]
    assert UNEVEN.val.tolist() == [[8, 7, 6, 5, 4], [8, 8, 5, 5, 5]]
    assert [report_in(job, column, 5) for column in range(5)] == [1, 1, 2, 2, 2]
    assert [column_of(job, number, 5) for number in (1, 2)] == [0, 2]
    assert [told_at(job, number, 5) for number in (1, 2)] == [2, 5]


def test_a_simulated_job_has_the_losses_of_its_own_reports() -> None:
    curves, job = TableCurves(UNEVEN), UNEVEN.task.jobs[1]
    assert [curves.losses(job, step).val for step in (1, 2)] == [8, 5]


def test_samples_are_counted_once() -> None:
    assert report_samples(UNEVEN).tolist() == [[10] * 5, [25, 0, 25, 0, 0]]
    play = play_policy(UNEVEN, FifoSettings())
    assert play.columns == (0, 0, 1, 2, 2, 3, 4)
    assert play.rows == (0, 1, 0, 0, 1, 0, 0)
    assert judge(UNEVEN, play).budget == 1.0


class Told(TrainAll):
    def __init__(self) -> None:
        self.times: list[tuple[int, int]] = []

    def stops(self, job: int, report: int, loss: float) -> bool:
        self.times.append((job, report))
        return False


@pytest.mark.parametrize("arrival", Arrival)
def test_a_tuner_is_told_how_far_a_job_is_and_of_no_report_twice(arrival: Arrival) -> None:
    rule = Told()
    play = play_rule(UNEVEN, rule, arrival, (0, 1))
    assert [time for job, time in rule.times if job == 1] == [2, 5]
    assert judge(UNEVEN, play).budget == 1.0
    assert len(play_rule(UNEVEN, Patience(1), arrival, (0, 1)).rows) == 7, "no loss comes again"


@pytest.mark.parametrize(
    ("selection", "settings"),
    [
        (ALTO, AltoSettings()),
        (
            Selection(rounds=(0.05, 0.2), keep=(0.5, 0.5)),
            AltoPlusSettings(rounds=(0.05, 0.2), keep=0.5, handicap=0.0, rules=ExitRules()),
        ),
    ],
)
@pytest.mark.parametrize("steps", [(12, 24), (29, 30)])
def test_the_numerical_model_says_what_the_policy_does(
    selection: Selection, settings: Settings, steps: Sequence[int]
) -> None:
    (whole,) = generated_sets(1)
    curves = with_few(whole, {row: steps[row % 2] for row in range(0, 60, 3)})
    played, modelled = judge(curves, play_policy(curves, settings)), outcome(curves, selection)
    assert np.unique([job.reports for job in curves.task.jobs]).tolist() == [*sorted(steps), 40]
    assert modelled.budget == pytest.approx(played.budget, rel=1e-12)
    assert modelled.regret == played.regret
    assert modelled.top_kept == played.top_kept
