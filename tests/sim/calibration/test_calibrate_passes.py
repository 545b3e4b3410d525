"""What is learnt from runs whose passes and evaluations are known in more than their tokens."""

from dataclasses import replace

import pytest

from alto_policy.types import TaskId, TokenCounts
from alto_runs.files.executor_work import EvaluationWork, Work
from alto_sim.calibration.from_work import fit_work, trained_beside
from alto_sim.times.step_time import Computed, walked_rows
from tests.sim.calibration.test_calibrate import BENT, JOBS, STEADY, TASK

PLACES, WALKED = 3e-7, 5e-6  # seconds of each


def test_what_passes_computed_is_fitted_where_it_is_known_of_every_run() -> None:
    """Of rows that are as many, those with more room for attention take longer, and those whose
    adapters are walked."""
    rows, known = [], []
    for i, row in enumerate(STEADY):
        each = row.replayed_rows / row.passes
        computed = Computed(
            rows={each: row.passes},
            places=row.passes * each * (1 + i % 3),
            walked=row.passes * walked_rows(16 if i in (0, 3, 4) else 32, 256),
        )
        more = PLACES * computed.places + WALKED * computed.walked
        rows.append(replace(row, seconds=row.seconds + more))
        known.append(computed)
    found = fit_work(rows, computed=[known])
    assert found is not None
    times = found.step_time.rows
    assert times is not None
    assert times.is_detailed
    assert times.per_place == pytest.approx(PLACES, rel=0.01)
    assert times.per_walked == pytest.approx(WALKED, rel=0.01)
    assert times.per_row == pytest.approx(0.001, rel=0.01)
    plain = fit_work(rows, rows, computed=[known, ()])
    assert plain == fit_work(rows, rows)
    (beside, *_) = trained_beside(rows, found, {}, known)
    assert beside is not None
    assert beside.more == pytest.approx(0.0, abs=0.01)
    assert trained_beside(rows, found, {}) == [None] * len(rows)


@pytest.mark.parametrize(("more", "least"), [(0.25, 0.25), (-40.0, None)])
def test_passes_that_are_launched_each_time_take_what_the_host_does_at_least(
    more: float, least: float | None
) -> None:
    """Nobody tells of that where the device is done later."""
    tokens, times = 40_960, BENT.rows
    assert times is not None
    by_work = 0.5 + times.seconds(tokens) + 0.01 * 64 + 0.0005 * tokens
    seconds = 2 * (by_work + more)
    launched = replace(
        STEADY[-1], passes=2, replayed=0, replayed_rows=0, tokens=2 * tokens, seconds=seconds
    )
    rows = [*STEADY, launched, launched]
    known = [
        Computed(rows={n: row.passes})
        for row, n in zip(rows, [*sizes(), tokens, tokens], strict=True)
    ]
    found = fit_work(rows, computed=[known])
    assert found is not None
    expected = 0.0 if least is None else by_work + least
    assert found.overheads.launched_pass == pytest.approx(expected)
    assert found.overheads.recording == 0


def sizes() -> list[float]:
    return [row.replayed_rows / row.passes for row in STEADY]


def test_short_sequences_take_longer_to_evaluate_than_as_many_tokens_of_long_ones() -> None:
    long = TaskId("long")
    means = {TASK.id: 50.0, long: 200.0}
    rows: list[Work] = [*STEADY]
    for name, mean in means.items():
        for jobs in (1, 1, 2, 2, 4, 4):
            tokens = jobs * 8192
            seconds = 0.5 + tokens * (0.001 + 0.02 / mean)
            rows.append(
                EvaluationWork(
                    task=name, jobs=jobs, first_reports=0, tokens=tokens, seconds=seconds
                )
            )
    found = fit_work(rows, means=means)
    assert found is not None
    assert found.step_time.per_evaluated_sequence == pytest.approx(0.02, rel=0.01)
    assert found.step_time.per_evaluated_token == pytest.approx(0.001, rel=0.01)
    more = (found.overheads.first_evaluation, found.overheads.first_round)
    assert more == pytest.approx((0.0, 0.0), abs=0.01)
    counted = replace(TASK, tokens=TokenCounts(per_sample=50.0, validation=8192))
    seconds = found.step_time.evaluation_seconds(JOBS[:1], counted)
    assert seconds == pytest.approx(0.5 + 8192 * 0.0014, rel=0.01)
    one_mean = fit_work(*[rows], means={TASK.id: 50.0, long: 50.0})
    assert one_mean is not None
    assert one_mean.step_time.per_evaluated_sequence == 0
