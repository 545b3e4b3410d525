"""Decisions that could not be told are made again from where the log ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_exec.site import RunToTrain, ThisMachine, TrainingBackend, UndecidedError
from alto_exec.tuning import tune_at
from alto_policy.decisions import Decision, Stop
from alto_runs.errors import UserError
from alto_runs.replaying import replay_run
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

SILENT = Console(quiet=True)


class Losing(ThisMachine):
    """Loses what the first decisions to stop were made on, so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    @contextmanager
    def backend(self, run: RunToTrain) -> Iterator[TrainingBackend]:
        with super().backend(run) as backend:
            prepare = backend.prepare

            def lose(decisions: Sequence[Decision]) -> None:
                if self._left and any(isinstance(decision, Stop) for decision in decisions):
                    self._left -= 1
                    raise UndecidedError("the executor is gone")
                prepare(decisions)

            backend.prepare = lose  # type: ignore[method-assign]
            yield backend


def test_the_run_ends_as_if_nothing_had_been_lost(tmp_path: Path) -> None:
    expected = tune(small_study(tmp_path), tmp_path / "expected", console=SILENT)
    found = tune_at(Losing(2), small_study(tmp_path), tmp_path / "run", console=SILENT)
    assert_same_outcome(found, expected)
    assert replay_run(tmp_path / "run")[1] is None


def test_who_loses_it_again_and_again_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the executor is gone, again and again"):
        tune_at(Losing(99), small_study(tmp_path), tmp_path / "run", console=SILENT)
