"""The service, with its studies trained by executors of a Ray cluster."""

from pathlib import Path
from typing import Any

from rich.console import Console

from alto_exec import tune
from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorDown
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import parse_study
from alto_service.database import State
from tests.cluster.trouble import free_gpus
from tests.service.cases import (
    SETTINGS,
    STUDY,
    Workers,
    assert_same_board,
    client_of,
    front,
    submission,
    write_data,
)


def test_studies_train_side_by_side_and_end_as_under_the_command(
    nodes: Any, tmp_path: Path
) -> None:
    root = write_data(tmp_path / "root")
    study = parse_study(STUDY.format(name="small"), "study", root)
    study = study.model_copy(update={"policy": SETTINGS.policy})
    expected = tune(study, tmp_path / "tuned", console=Console(quiet=True)).leaderboard
    workers = Workers(front(tmp_path / "service", root), cluster=nodes.address)
    client = client_of(workers.front)
    for name in ("small", "other"):
        assert client.post("/studies", json=submission(name)).status_code == 201
    workers.start()
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
    free, total = free_gpus(nodes.address)
    assert free == total
