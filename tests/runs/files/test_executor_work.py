from pathlib import Path

import pytest

from alto_policy.types import TaskId
from alto_runs.errors import UserError
from alto_runs.files.executor_work import (
    EvaluationWork,
    LaunchWork,
    TrainingWork,
    append_work,
    read_work,
)

T = TaskId("t")
ROWS = (
    LaunchWork(task=T, jobs=2, seconds=0.5),
    TrainingWork(task=T, jobs=2, ranks=32, passes=10, tokens=5000, seconds=1.25),
    EvaluationWork(task=T, jobs=2, first_reports=1, tokens=800, seconds=0.25),
)


def test_rows_come_back_and_a_torn_one_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    assert read_work(path) == ()
    append_work(path, ROWS[0])
    with path.open("a") as file:
        file.write('{"work":{"kind":"Laun\n')
    for row in ROWS[1:]:
        append_work(path, row)
    assert read_work(path) == ROWS


def test_a_row_of_another_kind_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    append_work(path, ROWS[0])
    with path.open("a") as file:
        file.write('{"work":{"kind":"LaunchWork","task":"t","jobs":1.5,"seconds":2.0}}\n')
    with pytest.raises(UserError, match=r"work.jsonl: line 2: work.jobs: expected int, got 1.5"):
        read_work(path)
