"""A run read back from its directory."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from alto_policy.decisions import ExitReason, StartExecutor
from alto_policy.events import LossReported, TaskArrived
from alto_policy.runlog import RunLog, dump_entry
from alto_policy.types import GpuId, Hyperparameters, JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from alto_runs.result import Result, write_result
from tests.runs.cases import FATES, T, entry, fates, job, launch, log_of, save, task, up

JOB_COLUMNS = [
    "job",
    "task",
    *(field.name for field in fields(Hyperparameters)),
    "status",
    "reason",
    "steps",
    "best_val_loss",
    "final_val_loss",
    "adapter",
]
REPORT_COLUMNS = ["task", "t", "job", "step", "train_loss", "val_loss", "samples"]
DECISION_COLUMNS = [
    "t",
    "event",
    "decision",
    "task",
    "gpus",
    "gpu",
    "jobs",
    "job",
    "num_gpus",
    "reason",
    "wake_at",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save(fates(), tmp_path / "run").path


def test_jobs(run: Path) -> None:
    jobs = Result(run).jobs()
    assert list(jobs.columns) == JOB_COLUMNS
    assert list(jobs["job"][:3]) == ["diverged", "finished", "hasty"]
    assert list(jobs["status"][:3]) == ["stopped", "finished", "finished"]
    assert jobs["best_val_loss"].isna().sum() == 4
    assert set(jobs["rank"]) == {4}


def test_reports(run: Path) -> None:
    reports = Result(run).reports()
    assert list(reports.columns) == REPORT_COLUMNS
    assert len(reports) == 11
    diverged = reports[reports["job"] == "diverged"]
    assert list(diverged["step"]) == [2, 4]
    assert list(diverged["samples"]) == [4, 8]
    assert list(diverged["val_loss"]) == [1.0, 7.0]
    assert list(diverged["t"]) == [22.0, 24.0]


def test_decisions(run: Path) -> None:
    decisions = Result(run).decisions()
    assert list(decisions.columns) == DECISION_COLUMNS
    assert list(decisions["decision"].value_counts().items()) == [
        ("Stop", 6),
        ("Launch", 3),
        ("Pause", 2),
        ("StartExecutor", 1),
    ]
    first = decisions.iloc[0]
    assert (first["t"], first["event"], first["task"]) == (2.0, "TaskArrived", "t")
    stops = decisions[decisions["decision"] == "Stop"]
    assert list(stops["job"]) == ["cancelled", "weak", "diverged", "broken", "outranked", "hasty"]
    assert stops.iloc[2]["reason"] == ExitReason.DIVERGED


def test_frames_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    result = Result(save(log_of(), tmp_path / "run").path)
    assert list(result.jobs().columns) == JOB_COLUMNS
    assert list(result.reports().columns) == REPORT_COLUMNS
    assert list(result.decisions().columns) == DECISION_COLUMNS
    assert len(result.jobs()) == len(result.reports()) == len(result.decisions()) == 0


def test_the_winner(run: Path) -> None:
    best = Result(run).best()
    assert best is not None
    assert (best.standing.job, best.standing.best_val_loss, best.adapter) == ("diverged", 1.0, None)


def two_tasks() -> RunLog:
    return log_of(
        entry(TaskArrived(0.0, task("t", [job("a"), job("b")])), StartExecutor(T, (GpuId(0),))),
        entry(TaskArrived(0.0, task("u", [job("c")]))),
        entry(up(1.0), launch("a", "b")),
        entry(LossReported(2.0, JobId("a"), 2, 9.0, math.nan)),
        entry(LossReported(2.0, JobId("b"), 2, 9.0, 8.0)),
    )


def test_winners_of_several_tasks(tmp_path: Path) -> None:
    result = Result(save(two_tasks(), tmp_path / "run").path)
    best = result.best("t")
    assert best is not None
    assert best.standing.job == "b"
    assert result.best("u") is None
    for name, value in ((None, "None"), ("v", "'v'")):
        with pytest.raises(UserError) as caught:
            result.best(name)
        assert str(caught.value) == f"task: value {value}: expected one of t, u"


def adapter(run: RunDirectory, name: str, content: str) -> None:
    folder = run.job_folder(JobId(name))
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("adapter_config.json", "adapter_model.safetensors", "README.md"):
        (folder / file).write_text(f"{content} {file}")


def test_what_is_written_at_the_end(tmp_path: Path) -> None:
    run = save(two_tasks(), tmp_path / "run")
    adapter(run, "b", "first")
    result = write_result(run)
    best = result.best("t")
    assert best is not None
    assert best.adapter == run.path / "jobs" / "b"
    winner = run.best_folder(T)
    assert {path.name: path.read_text() for path in winner.iterdir()} == {
        "adapter_config.json": "first adapter_config.json",
        "adapter_model.safetensors": "first adapter_model.safetensors",
    }
    assert not run.best_folder(TaskId("u")).exists()
    rows = json.loads(run.leaderboard_path.read_text())
    assert [(row["job"], row["adapter"]) for row in rows] == [
        ("b", "jobs/b"),
        ("a", None),
        ("c", None),
    ]
    assert list(json.loads(run.metrics_path.read_text())["tasks"]) == ["t", "u"]


def test_a_new_winner_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    run = save(two_tasks(), tmp_path / "run")
    adapter(run, "b", "first")
    write_result(run)
    with run.log_path.open("a") as file:
        file.write(f"{dump_entry(entry(LossReported(3.0, JobId('a'), 4, 1.0, 1.0)))}\n")
    adapter(run, "a", "second")
    write_result(run)
    weights = run.best_folder(T) / "adapter_model.safetensors"
    assert weights.read_text() == "second adapter_model.safetensors"


def test_a_torn_last_line_does_not_matter(tmp_path: Path) -> None:
    run = save(fates(), tmp_path / "run")
    whole = Result(run.path)
    with run.log_path.open("a") as file:
        file.write('{"event":{"ki')
    torn = Result(run.path)
    assert torn.log.torn == '{"event":{"ki'
    assert [s.job for s in torn.leaderboard] == [s.job for s in whole.leaderboard]
    assert len(torn.leaderboard) == len(FATES)


def test_a_log_of_what_cannot_have_happened_is_named(tmp_path: Path) -> None:
    run = save(log_of(entry(LossReported(1.0, JobId("a"), 1, 1.0, 1.0))), tmp_path / "run")
    with pytest.raises(UserError) as caught:
        Result(run.path).leaderboard  # noqa: B018 - reading it is what fails
    assert str(caught.value) == (
        f"{run.log_path}: run log: entry 1: LossReported: job a is unknown"
    )


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run here, expected a folder with the file run\.jsonl"):
        Result(tmp_path)
