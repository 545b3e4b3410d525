"""Settings of `alto+`, chosen on other tasks than those it is judged on."""

import pytest

from alto_policy.policies.alto_plus import AltoPlusSettings
from experiments.exhibits.fig12_cluster import expected_exits
from experiments.grids.choosing_settings import (
    agreement,
    all_recordings,
    of_other_data,
    of_other_tasks,
    plus_of,
)
from experiments.grids.curve_sets import CurveSet, recorded_sets
from experiments.grids.same_task import name_of
from tests.experiments.tables import grid


def test_no_recording_of_a_task_chooses_for_it() -> None:
    every = all_recordings()
    names = {name_of(curves.task).replace("_", "-") for curves in every}
    for one in recorded_sets():
        others = {name_of(curves.task).replace("_", "-") for curves in of_other_tasks(one, every)}
        assert others == names - {one.name}
        others = {
            name_of(curves.task).replace("_", "-") for curves in of_other_data(one.name, every)
        }
        assert others == names - {one.name}


def test_alto_plus_is_as_all_recordings_choose() -> None:
    chosen, shipped = plus_of(all_recordings()), AltoPlusSettings()
    assert chosen is not None
    assert (chosen.rounds, chosen.keep[0]) == (shipped.rounds, shipped.keep)
    assert chosen.handicap == shipped.handicap


def late_bloomers() -> CurveSet:
    """40 reports; of the best third the larger batches begin behind, and end before the others."""
    begins = [3.0, 3.01, 3.3, 3.31, *([5.0] * 8)]
    ends = [1.2, 1.3, 1.0, 1.1, *([4.0] * 8)]
    losses = [
        [begin + (end - begin) * column / 39 for column in range(40)]
        for begin, end in zip(begins, ends, strict=True)
    ]
    return grid(losses, batch_sizes=[1, 1, 8, 8, *([1] * 8)])


def test_ranks_agree_where_large_batches_are_given_what_they_lack() -> None:
    assert agreement([late_bloomers()], 0.0) == pytest.approx(-0.6)
    assert agreement([late_bloomers()], 0.02) == pytest.approx(1.0)


def test_rounds_are_expected_to_leave_what_goes_on_between_them() -> None:
    one = expected_exits(AltoPlusSettings(rounds=(0.5,), keep=0.25))
    assert (one.warmup, one.keep) == (0.5, 0.25)
    two = expected_exits(AltoPlusSettings(rounds=(0.02, 0.5), keep=0.5))
    assert two.warmup == 0.05, "the first report"
    assert two.warmup + (1 - two.warmup) * two.keep == pytest.approx(0.05 + 0.5 * 0.45 + 0.25 * 0.5)
