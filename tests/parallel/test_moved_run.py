"""A run that is killed goes on with another number of processes, and ends as if it never had."""

import json
import os
import random
import signal
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_policy.events import LossReported
from alto_runs.errors import UserError
from alto_runs.replaying import replay_run
from alto_runs.report.page import write_report
from alto_runs.result import Result
from alto_runs.study import Study, load_study
from alto_sim.seeds import Simulation
from tests.forked import forked
from tests.parallel.test_launched import train_as_launched
from tests.ports import free_port
from tests.tune.cut import at_moments, begun_and_hardly_kept
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

QUIET = Console(quiet=True)
SECONDS = 240


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def expected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tune(study, tmp_path_factory.mktemp("one") / "run", console=QUIET)


def train_to(lines: int, study: Study, port: int, rank: int, size: int, folder: Path) -> None:
    at_moments([lines - 1], lambda: os.kill(os.getpid(), signal.SIGKILL))
    train_as_launched(study, port, rank, size, folder)


def train(study: Study, size: int, folder: Path, lines: int | None = None) -> None:
    """On so many ranks; all are killed when the log has so many lines."""
    work = train_as_launched if lines is None else partial(train_to, lines)
    port = free_port()
    ranks = [forked(work, study, port, rank, size, folder) for rank in range(size)]
    for process in ranks:
        process.start()
    try:
        for process in ranks if lines is None else ranks[:1]:
            process.join(SECONDS)
            assert process.exitcode == (0 if lines is None else -signal.SIGKILL)
    finally:
        for process in ranks:
            process.kill()
            process.join()


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (2, 4), (4, 1)])
def test_ends_as_if_never_moved(
    first: int, then: int, study: Study, expected: Result, tmp_path: Path
) -> None:
    lines = random.Random(10 * first + then).randrange(3, 30)
    train(study, first, tmp_path, lines)
    before = (tmp_path / "run" / "run.jsonl").read_bytes().rpartition(b"\n")[0]
    train(study, then, tmp_path)
    found = Result(tmp_path / "run")
    assert_same_outcome(found, expected)
    assert (tmp_path / "run" / "run.jsonl").read_bytes().startswith(before)
    assert replay_run(tmp_path / "run")[1] is None
    reports = [e.event for e in found.log.entries if isinstance(e.event, LossReported)]
    assert len({(report.job, report.step) for report in reports}) == len(reports)
    (task,) = found.history.tasks
    assert task.num_gpus == then
    assert {gpu for span in found.history.executors for gpu in span.gpus} <= set(
        range(max(first, then))
    )
    assert found.history.executors[-1].gpus == tuple(range(then))
    assert load_study(found.directory.study_path).executor.gpus == then
    write_report([tmp_path / "run"], tmp_path / "report")
    Simulation(path=tmp_path / "run", num_gpus=first).run(tmp_path / "simulated")
    assert json.loads((tmp_path / "simulated" / "metrics.json").read_text())


def test_slots_may_be_others_and_nothing_else(
    study: Study, expected: Result, tmp_path: Path
) -> None:
    train(study, 1, tmp_path, 12)

    def changed(**choices: object) -> Study:
        executor = type(study.executor)(**{**study.executor.model_dump(), **choices})
        return study.model_copy(update={"executor": executor})

    with pytest.raises(UserError, match=r"begun with executor.dtype 'float32', not 'bfloat16'"):
        tune(changed(dtype="bfloat16", max_jobs=2), tmp_path / "run", resume=True, console=QUIET)
    tune(
        changed(dtype="float32", max_jobs=2, gpus=None),
        tmp_path / "run",
        resume=True,
        console=QUIET,
    )
    assert_same_outcome(Result(tmp_path / "run"), expected)


def test_what_one_device_has_not_kept_is_trained_again_before_a_job_is_stopped(
    study: Study, expected: Result, tmp_path: Path
) -> None:
    begun_and_hardly_kept(expected, tmp_path / "run")
    train(study, 2, tmp_path)
    assert_same_outcome(Result(tmp_path / "run"), expected)
