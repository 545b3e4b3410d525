"""A grid that was recorded twice tells how far roundings lead a job."""

from pathlib import Path

import pytest

from alto_policy.types import Hyperparameters
from experiments.exhibits.exhibit import Verdict
from experiments.exhibits.past_repeats import exhibit
from tests.experiments.runs import loss_of, record


def test_recordings_of_the_same_jobs_are_set_beside_each_other(tmp_path: Path) -> None:
    folder, repeated = tmp_path / "traces" / "recorded", tmp_path / "traces" / "repeated"
    best = Hyperparameters(learning_rate=1e-3, batch_size=2)

    def rounded(chosen: Hyperparameters, share: float) -> float:
        """The best job is a twentieth worse, the others a hundredth."""
        is_best = (chosen.learning_rate, chosen.batch_size) == (1e-3, 2)
        return loss_of(chosen, share) * (1.3 if is_best else 1.01)

    record(folder / "a", "a-fifo")
    record(folder / "a1", "a-fifo-seed1", seed=1)
    record(folder / "b", "b-fifo")
    record(repeated / "a", "a_older-fifo")
    record(repeated / "a-again", "a-fifo", loss=rounded)
    shown = exhibit(folder, repeated)
    assert shown.verdict is Verdict.BEYOND
    ((task, jobs, apart, quarter, correlation, behind, *_),) = shown.table.rows
    assert (task, jobs) == ("a", 12)
    assert apart == pytest.approx(0.01 / 1.0, rel=0.02)
    assert quarter == pytest.approx(0.01, rel=0.02)
    assert 0.8 < float(correlation or 0) < 1
    second = sorted(
        loss_of(Hyperparameters(learning_rate=rate, batch_size=size), 1.0)
        for rate in (2e-4, 1e-3, 4e-3)
        for size in (1, 2, 4)
    )[1]
    first = loss_of(best, 1.0)
    there, back = 1.3 * first / (1.01 * second) - 1, second / first - 1
    assert behind == pytest.approx(max(there, back))


def test_nothing_that_was_recorded_twice_tells_nothing(tmp_path: Path) -> None:
    record(tmp_path / "traces" / "recorded" / "a", "a-fifo")
    shown = exhibit(tmp_path / "traces" / "recorded", tmp_path / "traces" / "repeated")
    assert shown.verdict is Verdict.CANNOT
