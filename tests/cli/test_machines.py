"""A machine that is named to simulate on, and is not to be had."""

from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_policy.runlog import dump_entry
from tests.cli.typed import mistake
from tests.runs.cases import entry, job, task

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--gpu", "T5"], "gpu: value 'T5': no data sheet of it, expected one of H100, "),
        (["--gpu", "A100"], "model: value 'tiny': its shape is not known, expected "),
        (["--profile", "none.jsonl"], "none.jsonl: "),
    ],
)
def test_machines_that_are_not_known(
    options: list[str], line: str, tmp_path: Path, capsys: Capture
) -> None:
    path, given = tmp_path / "trace.jsonl", replace(task("t", [job("a")]), backbone="tiny")
    path.write_text(f"{dump_entry(entry(TaskArrived(0.0, given)))}\n")
    told = mistake(capsys, "simulate", path, *options, "--out", tmp_path / "run")
    assert told.startswith(line)
    assert not (tmp_path / "run").exists()


def test_a_trace_of_recorded_times_has_no_other_machine(tmp_path: Path, capsys: Capture) -> None:
    path = Path("traces/tiresias/60_job.csv.gz")
    told = mistake(capsys, "simulate", path, "--gpu", "A100", "--out", tmp_path / "run")
    assert told == f"{path}: its jobs take as long as they took, whatever the machine"
