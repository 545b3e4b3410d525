"""A service in this process, and the processes that check and train for it."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from fastapi.testclient import TestClient
from rich.console import Console

from alto_exec import tune
from alto_runs.files.directory import RunDirectory
from alto_runs.outcomes.leaderboard import Standing
from alto_runs.result import Result
from alto_runs.study import parse_study
from alto_service.admission import Admission
from alto_service.app import create_app
from alto_service.checker import check_submissions
from alto_service.database import StudyRow
from alto_service.folder import ServiceDirectory
from alto_service.front import Front
from alto_service.settings import ServiceSettings
from alto_service.store import Store
from alto_service.tokens import Tokens
from alto_service.trainer import train_studies
from tests.forked import forked
from tests.tune.same import assert_same_values
from tests.tune.small_study import write_study

__all__ = [
    "SETTINGS",
    "STUDY",
    "Workers",
    "assert_same_board",
    "client_of",
    "front",
    "submission",
    "token_file",
    "tuned_alone",
    "write_data",
]

STUDY = """\
name: {name}
model: model
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search: {{learning_rate: [3.0e-3, 3.0e-2, 3.0e+4], rank: [2, 4]}}
budget: {{samples: 16}}
reports: 8
executor: {{device: cpu, threads: 1}}
prompts: ["say red"]
"""
SETTINGS = ServiceSettings.model_validate({"policy": {"name": "alto", "warmup": 0.25}})
SMALL = STUDY.format(name="small")


def write_data(folder: Path) -> Path:
    """Model and data that studies may name, in the folder that is returned."""
    write_study(folder)
    return folder


def tuned_alone(root: Path, folder: Path, text: str = SMALL) -> Result:
    """What `alto tune` makes of a study with the policy of the service, undisturbed."""
    study = parse_study(text, "study", root).model_copy(update={"policy": SETTINGS.policy})
    return tune(study, folder, console=Console(quiet=True))


def token_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def front(folder: Path, root: Path, tokens: Path | None = None) -> Front:
    directory = ServiceDirectory.open(folder)
    return Front(
        directory,
        Store(directory.store_path),
        Admission.of([root], SETTINGS.policy),
        None if tokens is None else Tokens(tokens),
        lambda: {"checker": True, "trainer": True},
    )


def client_of(front: Front, token: str | None = None) -> TestClient:
    headers: Mapping[str, str] = {} if token is None else {"Authorization": f"Bearer {token}"}
    return TestClient(create_app(front), base_url="http://127.0.0.1", headers=dict(headers))


def submission(name: str = "small", **fields: object) -> dict[str, object]:
    return {"study": STUDY.format(name=name), **fields}


@dataclass
class Workers:
    """The checker and the trainer of a front, to be killed at any moment."""

    front: Front
    settings: ServiceSettings = SETTINGS
    cluster: str | None = None  # address of Ray's
    processes: tuple[BaseProcess, ...] = ()

    def start(self, train: Callable[..., None] = train_studies) -> None:
        arguments = (self.front.directory.path, self.settings, self.front.admission.roots)
        self.processes = (
            forked(check_submissions, *arguments),
            forked(train, *arguments, has_failed=False, cluster=self.cluster),
        )
        for process in self.processes:
            process.start()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def wait(self, holds: Callable[[StudyRow], bool], number: int = 1) -> StudyRow:
        """Until it holds of the study; both processes live as long as it takes."""
        deadline = time.monotonic() + 240
        while True:
            row = self.front.store.study(number)
            assert row is not None
            if holds(row):
                return row
            assert all(process.is_alive() for process in self.processes), row
            assert time.monotonic() < deadline, row
            time.sleep(0.02)


def assert_same_board(directory: RunDirectory, expected: tuple[Standing, ...]) -> None:
    """As the file of the command, but for the name of the study before those of its jobs."""
    there = RunDirectory.known(directory.path).artifacts
    board = json.loads(directory.leaderboard_path.read_text())
    assert [row["job"].partition(".")[2].rpartition("-")[2] for row in board] == [
        standing.job.rpartition("-")[2] for standing in expected
    ]
    for row, standing in zip(board, expected, strict=True):
        told = (row["status"], row["reason"], row["steps"])
        assert told == (standing.status, standing.reason, standing.steps)
        assert (row["best_val_loss"] is None) == (standing.best_val_loss is None)
        if standing.best_val_loss is not None:
            assert_same_values(row["best_val_loss"], standing.best_val_loss)
        assert row["adapter"] is None or (there / row["adapter"]).names()
    assert not (directory.path / "checkpoints").exists()
