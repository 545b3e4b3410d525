"""Guarantee 4: a run that is killed at any moment, and resumed, ends as if it never had been."""

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_runs.result import Result
from alto_runs.study import Study
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

KILLS = 10


def train(study: Study, out: Path) -> None:
    tune(study, out, resume=True, console=Console(quiet=True))


def begin(study: Study, out: Path) -> BaseProcess:
    """A process of its own, forked from a server that has the libraries loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["alto_exec", "transformers.models.llama.modeling_llama"])
    process = context.Process(target=train, args=(study, out))
    process.start()
    return process


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, float]:
    """The run, and how long a process takes for it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    begin(study, tmp_path_factory.mktemp("warm") / "run").join()
    start = time.monotonic()
    process = begin(study, out)
    process.join()
    assert process.exitcode == 0
    return Result(out), time.monotonic() - start


@pytest.mark.parametrize("seed", range(KILLS))
def test_ends_as_if_never_killed(
    seed: int, study: Study, undisturbed: tuple[Result, float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    dice = random.Random(seed)
    for _ in range(1 + seed % 2):
        process = begin(study, tmp_path / "run")
        time.sleep(dice.uniform(0, seconds))
        process.kill()
        process.join()
    process = begin(study, tmp_path / "run")
    process.join()
    assert process.exitcode == 0
    assert_same_outcome(Result(tmp_path / "run"), expected)
