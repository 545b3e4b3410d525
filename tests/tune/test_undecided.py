"""Decisions that could not be told are made again from where the log ends."""

from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_exec.events.undecided import Perseverance, UndecidedError
from alto_exec.tuning import Options, tune_at
from alto_policy.decisions import ExitReason, Pause, Stop
from alto_policy.types import JobId
from alto_runs.errors import UserError
from alto_runs.replaying import replay_run
from tests.tune.losing import Losing
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

SILENT = Console(quiet=True)


def test_the_run_ends_as_if_nothing_had_been_lost(tmp_path: Path) -> None:
    expected = tune(small_study(tmp_path), tmp_path / "expected", console=SILENT)
    found = tune_at(Losing(2), small_study(tmp_path), tmp_path / "run", Options(console=SILENT))
    assert_same_outcome(found, expected)
    assert replay_run(tmp_path / "run")[1] is None


def test_who_loses_it_again_and_again_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the executor is gone, again and again"):
        tune_at(Losing(99), small_study(tmp_path), tmp_path / "run", Options(console=SILENT))


def test_who_gets_on_in_between_may_lose_as_often_again() -> None:
    lost, stop = 0, Stop(JobId("a"), ExitReason.DIVERGED)
    perseverance = Perseverance()

    def lose() -> None:
        nonlocal lost
        lost += 1
        perseverance.heard((stop,) if lost in (4, 8) else (Pause(stop.job),))
        raise UndecidedError("the executor is gone")

    with pytest.raises(UndecidedError):
        perseverance.go_on(lose)
    assert lost == 8 + 4
