"""What a trainer that is started again does for studies that wait: nothing before their turn."""

from functools import partial
from pathlib import Path
from typing import Any

from alto_service import trainer
from alto_service.database import State
from tests.service.cases import Workers, client_of, front, submission, write_data

_NOTED = "prepared.txt"


def train_noting(folder: Path, *arguments: Any, **how: Any) -> None:
    """In a process of its own: the numbers of the studies that are prepared go into a file."""
    names = vars(trainer)
    prepare = names["prepare_admitted"]

    def noted(row: Any, *more: Any) -> Any:
        with (folder / _NOTED).open("a") as file:
            file.write(f"{row.number}\n")
        return prepare(row, *more)

    names["prepare_admitted"] = noted
    trainer.train_studies(*arguments, **how)


def test_no_study_is_prepared_again_before_its_turn(tmp_path: Path) -> None:
    root = write_data(tmp_path / "root")
    workers = Workers(front(tmp_path / "service", root))
    client = client_of(workers.front)
    for name in ("first", "second", "third"):
        assert client.post("/studies", json=submission(name)).status_code == 201
    try:
        workers.start()
        workers.wait(lambda row: row.state is State.RUNNING)
        workers.wait(lambda row: row.state is State.QUEUED, number=3)
        workers.kill()
        workers.start(partial(train_noting, tmp_path))
        workers.wait(lambda row: row.state.is_final)
        noted = (tmp_path / _NOTED).read_text().split()
        workers.wait(lambda row: row.state.is_final, number=3)
    finally:
        workers.kill()
    assert noted[0] == "1"
    assert "3" not in noted
    assert (tmp_path / _NOTED).read_text().split() == ["1", "2", "3"]
