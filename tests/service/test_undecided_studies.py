"""The trainer goes on from its log where decisions could not be told, as `alto tune` does."""

from pathlib import Path

import pytest

from alto_runs.replaying import replay_run
from alto_service.checker import check_submissions
from alto_service.database import State
from alto_service.trainer import train_at
from tests.forked import forked
from tests.service.cases import (
    SETTINGS,
    Workers,
    assert_same_board,
    client_of,
    front,
    submission,
    tuned_alone,
    write_data,
)
from tests.tune.losing import Losing


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "root")


def begun(root: Path, folder: Path, times: int) -> Workers:
    """With one study; its trainer loses what is decided on so many times."""
    workers = Workers(front(folder, root))
    assert client_of(workers.front).post("/studies", json=submission()).status_code == 201
    arguments = (workers.front.directory.path, SETTINGS, workers.front.admission.roots)
    workers.processes = (
        forked(check_submissions, *arguments),
        forked(train_at, Losing(times), *arguments, has_failed=False),
    )
    for process in workers.processes:
        process.start()
    return workers


def test_a_study_ends_as_if_nothing_had_been_lost(root: Path, tmp_path: Path) -> None:
    """In the same process: no failure is counted against it."""
    expected = tuned_alone(root, tmp_path / "tuned").leaderboard
    workers = begun(root, tmp_path / "service", times=4)
    try:
        row = workers.wait(lambda row: row.state.is_final)
    finally:
        workers.kill()
    assert (row.state, row.error) == (State.DONE, None)
    assert_same_board(workers.front.directory.study(1), expected)
    assert replay_run(workers.front.directory.path)[1] is None


def test_who_loses_it_again_and_again_has_failed(root: Path, tmp_path: Path) -> None:
    workers = begun(root, tmp_path / "service", times=99)
    try:
        trainer = workers.processes[1]
        trainer.join(120)
        assert trainer.exitcode == 1
    finally:
        workers.kill()
