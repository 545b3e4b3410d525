"""The service, with its studies trained by executors of a Ray cluster."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorDown, TaskResized
from alto_runs.outcomes.leaderboard import Standing
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import ExecutorSpec
from alto_service.database import State, StudyRow
from alto_service.handover import Handover
from alto_service.settings import ServiceSettings
from alto_service.trainer import train_studies
from tests.cluster.trouble import PATIENCE_SECONDS, free_gpus
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def expected(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Standing, ...]:
    return tuned_alone(root, tmp_path_factory.mktemp("tuned")).leaderboard


def test_studies_train_side_by_side_and_end_as_under_the_command(
    nodes: Any, root: Path, expected: tuple[Standing, ...], tmp_path: Path
) -> None:
    workers = Workers(front(tmp_path / "service", root), cluster=nodes.address)
    client = client_of(workers.front)
    for name in ("small", "other"):
        assert client.post("/studies", json=submission(name)).status_code == 201
    workers.start(train_both)
    try:
        for number in (1, 2):
            row = workers.wait(lambda row: row.state.is_final, number)
            assert (row.state, row.error) == (State.DONE, None)
            assert_same_board(workers.front.directory.study(number), expected)
    finally:
        workers.kill()
    entries = Result(workers.front.directory.path).log.entries
    ends = [n for n, entry in enumerate(entries) if isinstance(entry.event, ExecutorDown)]
    starts = [
        (n, decision.gpus)
        for n, entry in enumerate(entries)
        for decision in entry.decisions
        if isinstance(decision, StartExecutor)
    ]
    assert [gpus for _, gpus in starts] == [(0,), (1,)]
    assert max(n for n, _ in starts) < min(ends)
    assert replay_run(workers.front.directory.path)[1] is None
    free, total = free_gpus(nodes)
    assert free == total


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_it_goes_on_with_another_number_of_gpus(
    first: int,
    then: int,
    nodes: Any,
    root: Path,
    expected: tuple[Standing, ...],
    tmp_path: Path,
) -> None:
    """One study was training then, and one had been checked and not been handed over."""
    workers = Workers(front(tmp_path / "service", root), on_gpus(first), nodes.address)
    client = client_of(workers.front)
    assert client.post("/studies", json=submission("small")).status_code == 201
    workers.start(train_to_the_first)
    try:
        trainer = workers.processes[1]
        trainer.join(PATIENCE_SECONDS)
        assert trainer.exitcode == -signal.SIGKILL
        assert client.post("/studies", json=submission("other")).status_code == 201
        workers.processes = workers.processes[:1]
        workers.wait(lambda row: row.state is State.CHECKED, 2)
        workers.kill()
        workers.settings = on_gpus(then)
        workers.start()
        for number in (1, 2):
            row = workers.wait(lambda row: row.state.is_final, number)
            assert (row.state, row.error) == (State.DONE, None)
            assert_same_board(workers.front.directory.study(number), expected)
    finally:
        workers.kill()
    entries = Result(workers.front.directory.path).log.entries
    resized = [entry.event for entry in entries if isinstance(entry.event, TaskResized)]
    assert [(event.task, event.num_gpus) for event in resized] == [("s1.small", then)]
    decisions = [decision for entry in entries for decision in entry.decisions]
    widths = [len(one.gpus) for one in decisions if isinstance(one, StartExecutor)]
    assert widths == [first, then, then]
    assert replay_run(workers.front.directory.path)[1] is None


def train_both(*arguments: Any, **options: Any) -> None:
    """In a process of its own, which takes none before both are checked, however long that takes:
    else the first may be over when the second comes."""
    in_state, are_there = Handover.in_state, False

    def both_or_none(handover: Handover, *states: State) -> Sequence[StudyRow]:
        nonlocal are_there
        found = in_state(handover, *states)
        if states != (State.CHECKED,):
            return found
        are_there = are_there or len(found) == 2
        return found if are_there else ()

    Handover.in_state = both_or_none  # type: ignore[method-assign, assignment]
    train_studies(*arguments, **options)


def train_to_the_first(*arguments: Any, **options: Any) -> None:
    """In a process of its own, which is killed as soon as a study is running."""
    move = Handover.move

    def move_and_die(handover: Handover, number: int, state: State) -> None:
        move(handover, number, state)
        if state is State.RUNNING:
            os.kill(os.getpid(), signal.SIGKILL)

    Handover.move = move_and_die  # type: ignore[method-assign, assignment]
    train_studies(*arguments, **options)


def on_gpus(count: int) -> ServiceSettings:
    return SETTINGS.model_copy(update={"executor": ExecutorSpec(gpus=count)})
