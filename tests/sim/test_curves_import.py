import math
from dataclasses import replace
from pathlib import Path

import pytest

from alto_runs.errors import UserError
from alto_sim.curves import Losses
from alto_sim.curves_import import read_trainer_state, read_trainer_states
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
    curves = read_trainer_states(tmp_path, [spec])
    assert curves.losses(spec, 2) == Losses(1.5, 1.25)
    assert caplog.messages == []
    read_trainer_states(tmp_path, [replace(spec, reports=4)])
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


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read this file"):
        read_trainer_state(tmp_path / "none.json")
