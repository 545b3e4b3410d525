"""Jobs that an executor of a cluster trains together are those that one device would."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alto_exec import tune
from alto_exec.ray_cluster import connection
from alto_exec.ray_cluster.remote import Patience
from alto_policy.events import JobLeft, LossReported
from alto_runs.result import Result
from tests.tune.small_study import small_study

SILENT = Console(quiet=True)


def passes(result: Result) -> list[tuple[int, int]]:
    """How many jobs trained together, and how often: from what the executor has noted."""
    lines = result.directory.work_path.read_text().splitlines()
    rows = [json.loads(line)["work"] for line in lines]
    return [(row["jobs"], row["passes"]) for row in rows if row["kind"] == "TrainingWork"]


def told(result: Result) -> list[tuple[str, str]]:
    """Of jobs, in the order of the log."""
    events = [entry.event for entry in result.log.entries]
    of_jobs = [event for event in events if isinstance(event, LossReported | JobLeft)]
    return [(type(event).__name__, event.job) for event in of_jobs]


def test_jobs_begin_report_and_leave_together_as_on_one_device(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the head answers."""
    monkeypatch.setattr(connection, "Patience", lambda: Patience(answer=1000.0))
    study = small_study(tmp_path)
    here = tune(study, tmp_path / "here", console=SILENT)
    there = tune(study, tmp_path / "there", cluster=nodes.address, console=SILENT)
    assert passes(there) == passes(here)
    assert told(there) == told(here)
    assert max(jobs for jobs, _ in passes(here)) == study.executor.max_jobs
