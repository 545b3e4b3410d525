"""Jobs whose optimizer keeps its moments in 8 bits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open

from alto_exec import tune
from alto_exec.adapters.tensor_file import file_parts
from alto_exec.preparation import bank_of, prepare
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from alto_runs.outcomes.comparison import read_comparisons
from alto_runs.study import load_study
from tests.exec.comparing import assert_identical, assert_same_training
from tests.exec.test_executor import Story, finish, job, new_executor
from tests.tune.small_study import STUDY, write_study

JOBS = (
    job("one", steps=24, reports=3, rank=4),
    job("other", steps=24, reports=3, rank=7, learning_rate=1e-3, batch_size=2, seed=3),
)
NEAR = 5e-3  # of a loss, relative, after 24 steps at usual rates


def trained(folder: Path, *, in_8_bits: bool, pause_after: int | None = None) -> Story:
    executor, story = new_executor(folder, in_8_bits=in_8_bits), Story()
    for each in JOBS:
        story.hear(executor.launch(each))
    if pause_after is not None:
        finish(executor, story, passes=pause_after)
        for each in JOBS:
            executor.leave(each.id, keep=True)
        for each in reversed(JOBS):  # to other rows
            story.hear(executor.launch(each))
    finish(executor, story)
    return story


def test_losses_are_near_those_of_fp32(tmp_path: Path) -> None:
    small = trained(tmp_path / "small", in_8_bits=True)
    plain = trained(tmp_path / "plain", in_8_bits=False)
    assert small.ends == plain.ends
    for each in JOBS:
        for found, expected in zip(small.reports[each.id], plain.reports[each.id], strict=True):
            assert found.losses.val == pytest.approx(expected.losses.val, rel=NEAR)
            assert found.losses.train == pytest.approx(expected.losses.train, rel=NEAR)
        assert small.losses(each.id) != plain.losses(each.id), "or nothing was tested"


def test_a_pause_loses_no_code(tmp_path: Path) -> None:
    """Checkpoints hold the codes themselves, and the dice do not ask for the row."""
    paused = trained(tmp_path / "paused", in_8_bits=True, pause_after=7)
    through = trained(tmp_path / "through", in_8_bits=True)
    for each in JOBS:
        assert_same_training(paused.losses(each.id), through.losses(each.id), what=each.id)
    path = Path(str(RunDirectory(tmp_path / "paused").checkpoint(JOBS[0].id)))
    with safe_open(path, "pt") as file:
        assert file.get_slice("mean").get_dtype() == "U8"
        assert file.get_tensor("root_scale").any()
    executor = new_executor(tmp_path / "paused", in_8_bits=False)
    with pytest.raises(UserError, match=r"mean is \(4, .*\) in uint8, the job needs .* float32"):
        executor.launch(JOBS[0])


def test_wide_tensors_are_aligned_behind_an_odd_number_of_codes(tmp_path: Path) -> None:
    codes, values = torch.arange(3, dtype=torch.uint8), torch.rand(2)
    path = tmp_path / "odd"
    path.write_bytes(b"".join(file_parts({"codes": codes, "values": values}, {})))
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert header["values"]["data_offsets"][0] % 4 == 0
    with safe_open(path, "pt") as file:
        assert_identical(file.get_tensor("codes"), codes)
        assert_identical(file.get_tensor("values"), values)


def asking_for(states: str) -> str:
    return STUDY.replace("executor: {{", f"executor: {{{{optimizer_states: {states}, ")


def test_a_study_asks_for_it(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, asking_for("int8")))
    (prepared,) = prepare(study)
    spec = study.executor.model_copy(update={"dtype": "float32"})
    backbone = prepared.load(spec)
    banks = [
        bank_of(backbone, spec.model_copy(update={"optimizer_states": states}))
        for states in ("int8", "float32")
    ]
    counted, before = (prepared.memory(backbone, bank, spec) for bank in banks)
    assert counted.per_rank < 0.7 * before.per_rank
    assert replace(counted, per_rank=before.per_rank) == before
    result = tune(study, tmp_path / "run", console=Console(quiet=True))
    header = result.log.header
    assert header is not None
    assert dict(header.made_by)["optimizer states"] == "int8"
    (comparison,) = read_comparisons(result.directory.comparison_path)
    assert comparison.val_loss < comparison.untuned_val_loss


def test_any_other_format_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"executor.optimizer_states: .*int4"):
        load_study(write_study(tmp_path, asking_for("int4")))
