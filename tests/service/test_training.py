"""Studies through the whole service: checked, trained, cancelled, refused, killed in between."""

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_runs.outcomes.comparison import read_comparisons
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_service.database import State, StudyRow
from alto_service.front import Front
from tests.service.cases import (
    SETTINGS,
    STUDY,
    Workers,
    assert_same_board,
    client_of,
    front,
    submission,
    tuned_alone,
    write_data,
)
from tests.tune.same import assert_same_values

SEEDS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def tuned(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the command makes of the same study, alone and undisturbed."""
    return tuned_alone(root, tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def workers(tmp_path: Path, root: Path) -> Iterator[Workers]:
    workers = Workers(front(tmp_path / "service", root))
    yield workers
    workers.kill()


def submit(front: Front, *names: str) -> None:
    for name in names:
        answer = client_of(front).post("/studies", json=submission(name))
        assert answer.status_code == 201, answer.text


def is_over(row: StudyRow) -> bool:
    return row.state.is_final


def test_studies_end_as_under_the_command(workers: Workers, tuned: Result, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (shelf / "s2" / "study.yaml").mkdir(parents=True)
    places = {"publish": f"file://{shelf}", "artifacts": f"file://{tmp_path}/store"}
    workers.settings = SETTINGS.model_copy(update=places)
    submit(workers.front, "small", "other")
    workers.start()
    for number in (1, 2):
        row = workers.wait(is_over, number)
        assert row.state is State.DONE
        directory = workers.front.directory.study(number)
        assert_same_board(directory, tuned.leaderboard)
        (comparison,) = read_comparisons(directory.comparison_path)
        assert_same_values(comparison.val_loss, tuned.leaderboard[0].best_val_loss or 0.0)
        assert (directory.best_folder(comparison.task) / "adapter_model.safetensors").is_file()
        assert not (directory.path / "jobs").exists()
        there = {path.name for path in (tmp_path / "store" / f"s{number}").iterdir()}
        assert {"jobs", "best", "leaderboard.json", "study.yaml"} <= there
        assert "checkpoints" not in there
    workers.kill()
    assert_published(workers.front, shelf)
    client = client_of(workers.front)
    status = client.get("/studies/s1").json()
    assert status["jobs"] == {"ended": 6}
    board = client.get("/studies/s1/leaderboard").json()
    assert (status["best"]["job"], status["best"]["val_loss"]) == (
        board[0]["job"],
        board[0]["best_val_loss"],
    )
    assert_streams_hold_the_log(workers.front)
    count, difference = replay_run(workers.front.directory.path)
    assert (count > 20, difference) == (True, None)


def assert_published(front: Front, shelf: Path) -> None:
    """The first study; where the second should be something stands in the way."""
    errors = [row.error for number in (1, 2) if (row := front.store.study(number))]
    assert errors[0] is None
    assert (errors[1] or "").startswith("trained, but not published: publish: value 'file://")
    directory = front.directory.study(1)
    files = [
        *directory.best_path.rglob("adapter_*"),
        directory.study_path,
        directory.leaderboard_path,
    ]
    assert len(files) >= 4
    for path in files:
        there = shelf / "s1" / path.relative_to(directory.path)
        assert there.read_bytes() == path.read_bytes()


def assert_streams_hold_the_log(front: Front) -> None:
    """The two studies' parts make up the whole, and none tells of the other."""
    client = client_of(front)
    with client.stream("GET", "/studies/s1/events") as stream:
        messages = "".join(stream.iter_text()).strip().split("\n\n")
    assert messages[-1].startswith("event: end\ndata: {")
    ids = [int(message.split("\n")[0].removeprefix("id: ")) for message in messages[:-1]]
    pages = [client.get(f"/studies/s{n}/log", params={"limit": 1000}).json() for n in (1, 2)]
    assert len(pages[0]["entries"]) == len(ids)
    assert "s2" not in json.dumps(pages[0]["entries"])
    assert "s1" not in json.dumps(pages[1]["entries"])
    later = client.get("/studies/s1/events", headers={"Last-Event-ID": str(ids[4])}).text
    assert later.startswith(f"id: {ids[5]}\n")
    total = len(front.directory.run.log_path.read_text().splitlines()) - 1
    with_both = 1  # the end of the first, on which the second was started
    assert sum(len(page["entries"]) for page in pages) == total + with_both


def test_each_ends_in_its_own_way(workers: Workers, root: Path) -> None:
    """Refused, failed since its data has changed, cancelled while it waits and while it trains."""
    client = client_of(workers.front)
    long = STUDY.format(name="trained").replace("samples: 16", "samples: 9999")
    client.post("/studies", json={"study": long, "tenant": "team", "priority": 2})
    submit(workers.front, "waiting")
    (root / "gone.jsonl").write_text((root / "train.jsonl").read_text())
    text = STUDY.format(name="changed").replace("train.jsonl", "gone.jsonl")
    client.post("/studies", json={"study": text})
    text = STUDY.format(name="missing").replace("train.jsonl", "missing.jsonl")
    client.post("/studies", json={"study": text})
    client.post("/studies", json=submission("unread"))
    client.post("/studies/s5/cancel")
    workers.start()
    refused = workers.wait(is_over, 4)
    assert refused.state is State.REFUSED
    assert refused.error is not None
    assert f"data.train: value '{root / 'missing.jsonl'}': no such file" in refused.error
    assert workers.wait(is_over, 5).state is State.CANCELLED
    workers.wait(lambda row: row.state is State.RUNNING and "running" in row.progress)
    client.post("/studies/s2/cancel")
    workers.wait(lambda row: row.state is State.QUEUED or is_over(row), 3)
    (root / "gone.jsonl").write_text("")
    client.post("/studies/s1/cancel")
    for number in (1, 2):
        assert workers.wait(is_over, number).state is State.CANCELLED
    changed = workers.wait(is_over, 3)
    assert changed.state is State.FAILED
    assert "gone.jsonl" in (changed.error or "")
    board = client.get("/studies/s2/leaderboard").json()
    assert {(row["reason"], row["steps"]) for row in board} == {("cancelled", 0)}
    done = client.post("/studies/s2/cancel").json()
    assert done["state"] == "cancelled"
    workers.kill()
    events = [entry.event for entry in Result(workers.front.directory.path).log.entries]
    tasks = [event.task for event in events if isinstance(event, TaskArrived)]
    assert [(task.tenant, task.priority) for task in tasks] == [("team", 2), ("", 0), ("", 0)]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_at_any_moment_it_ends_the_same(seed: int, workers: Workers, tuned: Result) -> None:
    dice = random.Random(seed)
    submit(workers.front, "small", "other")
    for _ in range(3):
        workers.start()
        time.sleep(dice.uniform(0, 1.5))
        workers.kill()
    workers.start()
    for number in (1, 2):
        row = workers.wait(is_over, number)
        assert (row.state, row.error) == (State.DONE, None)
        assert_same_board(workers.front.directory.study(number), tuned.leaderboard)
    workers.kill()
    log = Result(workers.front.directory.path).log
    arrived = [type(entry.event).__name__ for entry in log.entries].count("TaskArrived")
    assert arrived == 2
    assert replay_run(workers.front.directory.path)[1] is None
