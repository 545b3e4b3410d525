"""Who is best, and what the file says of each."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.events import LossReported, TaskArrived
from alto_policy.runlog import RunLog
from alto_policy.types import GpuId, Hyperparameters, JobId
from alto_runs.files.directory import RunDirectory
from alto_runs.outcomes.history import follow
from alto_runs.outcomes.leaderboard import (
    ADAPTER_STEP,
    ADAPTER_WEIGHTS,
    leaderboard_json,
    rank_jobs,
)
from tests.runs.cases import T, entry, fates, job, launch, log_of, task, up


def losses(*reports: tuple[str, int, float]) -> RunLog:
    """A task of four jobs that report their validation losses."""
    jobs = [job(name) for name in "abcd"]
    told = (LossReported(9.0, JobId(name), step, 1.0, val) for name, step, val in reports)
    return log_of(
        entry(TaskArrived(0.0, task("t", jobs)), StartExecutor(T, (GpuId(0),))),
        entry(up(1.0), launch(*"abcd")),
        *(entry(report) for report in told),
    )


def ranked(log: RunLog) -> list[tuple[str, float | None, float | None]]:
    return [(s.job, s.best_val_loss, s.final_val_loss) for s in rank_jobs(follow(log))]


def test_the_best_report_counts_whatever_came_after() -> None:
    log = losses(("a", 2, 2.0), ("b", 2, 1.0), ("b", 4, 8.0), ("c", 2, 3.0), ("c", 4, 1.5))
    assert ranked(log) == [
        ("b", 1.0, 8.0),
        ("c", 1.5, 1.5),
        ("a", 2.0, 2.0),
        ("d", None, None),
    ]


def test_ties_are_in_the_order_of_the_jobs() -> None:
    log = losses(("d", 2, 1.0), ("c", 2, 1.0), ("a", 2, 2.0), ("b", 2, 1.0))
    assert [name for name, *_ in ranked(log)] == ["b", "c", "d", "a"]


def test_losses_that_are_not_finite_never_win() -> None:
    log = losses(("a", 2, -math.inf), ("b", 2, 5.0), ("b", 4, math.nan), ("c", 2, math.inf))
    (best, *rest) = ranked(log)
    assert best[:2] == ("b", 5.0)
    assert math.isnan(best[2] or 0)
    assert [(name, loss) for name, loss, _ in rest] == [("a", None), ("c", None), ("d", None)]


def test_fates_side_by_side() -> None:
    """A job that diverged competes with its best report, and wins."""
    rows = [
        (s.job, s.status.value, s.reason and s.reason.value, s.steps, s.best_val_loss)
        for s in rank_jobs(follow(fates()))
    ]
    assert rows == [
        ("diverged", "stopped", "diverged", 4, 1.0),
        ("finished", "finished", None, 10, 1.5),
        ("hasty", "finished", None, 10, 2.0),
        ("running", "running", None, 4, 2.0),
        ("evicted", "paused", None, 4, 3.0),
        ("paused", "paused", None, 2, 3.0),
        ("outranked", "stopped", "underperformed", 2, 4.0),
        ("weak", "stopped", "underperformed", 2, 9.0),
        ("broken", "stopped", "non-finite loss", 2, None),
        ("failed", "failed", None, 0, None),
        ("cancelled", "stopped", "cancelled", 0, None),
        ("queued", "queued", None, 0, None),
    ]


def test_tasks_are_ranked_apart_in_the_order_of_arrival() -> None:
    log = log_of(
        entry(TaskArrived(0.0, task("t", [job("a")])), StartExecutor(T, (GpuId(0),))),
        entry(TaskArrived(0.0, task("r", [job("z"), job("y")]))),
        entry(up(1.0), launch("a")),
        entry(LossReported(2.0, JobId("a"), 2, 9.0, 9.0)),
    )
    assert [(s.task, s.job) for s in rank_jobs(follow(log))] == [("t", "a"), ("r", "z"), ("r", "y")]


def test_an_adapter_counts_when_its_weights_are_there(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("finished", "weak"):
        run.job_folder(JobId(name)).mkdir(parents=True)
        (run.job_folder(JobId(name)) / "adapter_config.json").touch()
    (run.job_folder(JobId("weak")) / "adapter_model.safetensors").touch()
    adapters = {s.job: s.adapter for s in rank_jobs(follow(fates()), run)}
    assert adapters.pop(JobId("weak")) == "jobs/weak"
    assert set(adapters.values()) == {None}
    assert all(s.adapter is None for s in rank_jobs(follow(fates())))


@pytest.mark.parametrize(
    ("step", "loss", "adapter"),
    [
        pytest.param("4", 1.0, "jobs/a", id="of its best report"),
        pytest.param("2", 3.0, "jobs/a", id="of an earlier one: the best was lost"),
        pytest.param("6", 1.0, None, id="of a loss that is not finite"),
        pytest.param("8", 1.0, None, id="of a report that nobody has heard"),
        pytest.param(None, 1.0, "jobs/a", id="as older runs wrote it"),
    ],
)
def test_an_adapter_stands_beside_its_own_loss(
    step: str | None, loss: float, adapter: str | None, tmp_path: Path
) -> None:
    log = log_of(
        entry(TaskArrived(0.0, task("t", [job("a")])), StartExecutor(T, (GpuId(0),))),
        entry(up(1.0), launch("a")),
        *(
            entry(LossReported(2.0 + at, JobId("a"), at, 9.0, val))
            for at, val in ((2, 3.0), (4, 1.0), (6, math.nan))
        ),
    )
    run = RunDirectory(tmp_path)
    told = {} if step is None else {ADAPTER_STEP: step}
    header = json.dumps({"__metadata__": {"format": "pt", **told}}).encode()
    folder = run.job_folder(JobId("a"))
    folder.mkdir(parents=True)
    (folder / ADAPTER_WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    (standing,) = rank_jobs(follow(log), run)
    assert (standing.best_val_loss, standing.adapter) == (loss, adapter)


def test_the_file_is_json_of_flat_rows() -> None:
    text = "".join(leaderboard_json(rank_jobs(follow(fates()))))
    rows = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    names = [field.name for field in fields(Hyperparameters)]
    for row in rows:
        assert list(row) == [
            "job", "task", *names, "status", "reason", "steps",
            "best_val_loss", "final_val_loss", "adapter",
        ]  # fmt: skip
    by_job = {row["job"]: row for row in rows}
    assert rows[0] == {
        "job": "diverged",
        "task": "t",
        "rank": 4,
        "alpha": 8.0,
        "rslora": False,
        "dropout": 0.0,
        "learning_rate": 2e-4,
        "schedule": "constant",
        "rise": 0.0,
        "weight_decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "epsilon": 1e-8,
        "clip": None,
        "dpo_beta": 0.1,
        "batch_size": 2,
        "accumulation": 1,
        "seed": 0,
        "status": "stopped",
        "reason": "diverged",
        "steps": 4,
        "best_val_loss": 1.0,
        "final_val_loss": 7.0,
        "adapter": None,
    }
    assert by_job["broken"]["best_val_loss"] is by_job["broken"]["final_val_loss"] is None  # NaN
    assert by_job["running"]["final_val_loss"] is None  # infinite
    assert text.endswith("]\n")


def test_a_run_without_jobs() -> None:
    assert "".join(leaderboard_json(rank_jobs(follow(log_of())))) == "[]\n"
