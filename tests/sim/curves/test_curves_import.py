import math
from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.events import LossReported, TaskArrived
from alto_runs.errors import UserError
from alto_runs.export import TableFormat, write_exports
from alto_runs.files.directory import RunDirectory
from alto_runs.files.logfile import read_run_log
from alto_sim.curves.imported import read_curves, read_trainer_state
from alto_sim.curves.losses import Losses, RecordedCurves
from tests.sim.cases import job

STATE = """{"global_step": 4, "log_history": [
  {"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}, {"eval_loss": 1.25, "step": 2},
  {"loss": 0.5, "step": 4}, {"eval_loss": NaN, "step": 4}, {"train_runtime": 9.0, "step": 4}]}"""


def state(folder: Path, text: str) -> Path:
    path = folder / "trainer_state.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_report_holds_the_training_since_the_last_one(tmp_path: Path) -> None:
    found = read_trainer_state(state(tmp_path, STATE))
    assert found[2] == Losses(1.5, 1.25)
    assert found[4].train == 0.5
    assert math.isnan(found[4].val)


def test_curves_of_jobs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    state(tmp_path / "a", STATE)
    spec = job("a", 4, 2)
    curves = read_curves(tmp_path, [spec])
    assert curves.losses(spec, 2) == Losses(1.5, 1.25)
    assert caplog.messages == []
    read_curves(tmp_path, [replace(spec, reports=4)])
    assert caplog.messages == [
        f"{tmp_path}: 2 of 4 reports are at steps without an evaluation, and take the one before"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "cannot read this file"),
        ("[]", "log_history: expected a list, got None"),
        ('{"log_history": [3]}', r"log_history\[0\]: expected an object, got 3"),
        ('{"log_history": [{"loss": "1"}]}', r"log_history\[0\]: loss: expected a number, got '1'"),
        ('{"log_history": [{"eval_loss": 1, "step": 0}]}', r"\[0\]: step: expected an integer"),
        ('{"log_history": [{"loss": 1, "step": 1}]}', "no 'eval_loss' in it"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_trainer_state(state(tmp_path, text))


TABLE = """\
run,job,step,val_loss,train_loss
x,a,2,1.25,1.5
x,b,1,9,9
x,a,4,,0.5
x,c,2,1.5,
"""


def test_curves_of_a_table(tmp_path: Path) -> None:
    """Whatever else stands in it."""
    path = tmp_path / "losses.csv"
    path.write_text(TABLE, encoding="utf-8")
    first, third = job("a", 4, 2), job("c", 2, 1)
    curves = read_curves(path, [first, third])
    assert curves.losses(first, 2) == Losses(1.5, 1.25)
    assert curves.losses(first, 4).train == 0.5
    assert math.isnan(curves.losses(first, 4).val)
    assert curves.losses(third, 2) == Losses(1.5, 1.5)


def test_a_run_s_own_table_gives_its_losses_again(tmp_path: Path) -> None:
    path = Path("traces/recorded/qasc-preferences-alto")
    (table,) = (
        each
        for each in write_exports([path], tmp_path, [TableFormat.CSV], with_timeline=False)
        if each.name == "reports.csv"
    )
    log = read_run_log(RunDirectory.open(path).log_path)
    (task,) = (e.event.task for e in log.entries if isinstance(e.event, TaskArrived))
    curves, recorded = read_curves(table, task.jobs), RecordedCurves.of_log(log.entries)
    for entry in log.entries:
        if isinstance(report := entry.event, LossReported):
            (spec,) = (each for each in task.jobs if each.id == report.job)
            assert curves.losses(spec, report.step) == recorded.losses(spec, report.step)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("t.csv", "job,step,val_loss\na,1,2\n", "no column 'train_loss'"),
        ("t.csv", TABLE.replace("a,4", "a,0"), "line 4: field step: value '0': expected a whole"),
        ("t.csv", TABLE.replace("1.25", "low"), "line 2: field val_loss: value 'low'"),
        ("t.csv", TABLE.replace("c,", "d,"), "no row of job 'c'"),
        ("t.txt", TABLE, "no such folder, expected one with a folder for each job, or a .csv"),
    ],
)
def test_a_fault_of_a_table_is_named(name: str, text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=fault):
        read_curves(path, [job("a", 4, 2), job("c", 2, 1)])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read this file"):
        read_trainer_state(tmp_path / "none.json")
