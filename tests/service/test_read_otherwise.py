"""A study that waits and is read otherwise by the time that it is its turn."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from alto_service.database import State
from tests.service.cases import STUDY, Workers, client_of, front, write_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data(tmp_path / "root")


@pytest.fixture
def workers(tmp_path: Path, root: Path) -> Iterator[Workers]:
    workers = Workers(front(tmp_path / "service", root))
    yield workers
    workers.kill()


def hand_in(workers: Workers, name: str, text: str) -> None:
    answer = client_of(workers.front).post("/studies", json={"study": text.replace("NAME", name)})
    assert answer.status_code == 201, answer.text


def test_it_goes_on_as_it_was_submitted_if_it_can(workers: Workers, root: Path) -> None:
    records = (root / "train.jsonl").read_text().splitlines(keepends=True)
    text = STUDY.format(name="NAME")
    hand_in(workers, "trains", text.replace("samples: 16", "samples: 9999"))
    for name in ("shorter", "longer"):
        (root / f"{name}.jsonl").write_text("".join(records))
        hand_in(workers, name, text.replace("train.jsonl", f"{name}.jsonl"))
    workers.start()
    for number in (2, 3):
        workers.wait(lambda row: row.state is State.QUEUED, number)
    workers.wait(lambda row: row.state is State.RUNNING)
    (root / "shorter.jsonl").write_text("".join(sorted(records, key=len)[:8]))
    longer = json.dumps({"prompt": "say red", "completion": "red" * 9}) + "\n"
    (root / "longer.jsonl").write_text("".join([*records, longer]))
    client_of(workers.front).post("/studies/s1/cancel")
    shorter, failed = (workers.wait(lambda row: row.state.is_final, n) for n in (2, 3))
    assert (shorter.state, shorter.error) == (State.DONE, None)
    assert failed.state is State.FAILED
    assert (failed.error or "").startswith("study: its files, or how this version of ALTO reads")
    workers.kill()
    board = client_of(workers.front).get("/studies/s2/leaderboard").json()
    assert len(board) == 6
    assert min(row["steps"] for row in board) > 0
