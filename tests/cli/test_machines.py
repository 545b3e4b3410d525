"""A machine that is named to simulate on, and is not to be had."""

from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_policy.runlog import dump_entry
from alto_runs.profile import dump_rows, read_profile, shipped_profile
from alto_runs.result import Result
from tests.cli.typed import mistake, typed
from tests.runs.cases import entry, job, task

STUDY = """\
name: small
model: SmolLM2-135M
data: { train: train.jsonl, validation: train.jsonl }
search: { learning_rate: [1.0e-4, 2.0e-4] }
"""

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--gpu", "T5"], "--gpu: value 'T5': no data sheet of it, expected one of H100, "),
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
    assert told == (
        f"{path}: its jobs take as long as they took, whatever the machine; expected no --profile "
        "and no --gpu"
    )


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    records = ('{"prompt": "a", "completion": "b"}\n', '{"prompt": "c", "completion": "d"}\n')
    (tmp_path / "train.jsonl").write_text("".join(records))
    return path


def test_a_trace_alone_is_made_searches_of(study: Path, tmp_path: Path, capsys: Capture) -> None:
    conditions = tmp_path / "conditions.yaml"
    conditions.write_text("rows: tuning")
    asked = ("simulate", study, "--conditions", conditions, "--out", tmp_path / "run")
    assert mistake(capsys, *asked) == (
        f"{conditions}: rows: value 'tuning': expected a trace of a cluster's jobs, and the tasks "
        f"of {study} are what they are"
    )


def test_a_machine_without_a_data_sheet_has_the_memory_that_the_study_says(
    study: Path, tmp_path: Path, capsys: Capture
) -> None:
    profile = tmp_path / "mine.jsonl"
    rows = read_profile(shipped_profile())
    own = [replace(row, machine=replace(row.machine, gpu="a CPU")) for row in rows]
    profile.write_text(dump_rows(own))
    asked = ("simulate", study, "--profile", profile, "--out", tmp_path / "run")
    assert mistake(capsys, *asked) == (
        f"{study}: executor.memory_gb: missing, expected in the study: no data sheet tells the "
        "memory of 'a CPU'"
    )
    study.write_text(STUDY + "executor: { memory_gb: 20 }\n")
    assert typed(capsys, *asked).status == 0
    header = Result(tmp_path / "run").log.header
    assert header is not None
    assert {gpu.kind for gpu in header.gpus} == {"a CPU"}
