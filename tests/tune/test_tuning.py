"""A study trained for real, end to end."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from torch import Tensor
from transformers import AutoModelForCausalLM

from alto_exec import tune
from alto_exec.adapters import bank_memory
from alto_exec.host.machine import processor
from alto_exec.passes.training import train_pass
from alto_exec.preparation import prepare
from alto_policy.decisions import ExitReason, Stop
from alto_policy.events import Departure, JobLeft, LossReported
from alto_policy.runlog import Entry
from alto_policy.types import JobId
from alto_runs.errors import UserError
from alto_runs.files.directory import LogWriter, RunDirectory
from alto_runs.outcomes.comparison import read_comparisons
from alto_runs.outcomes.history import Outcome
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import load_study, resolved_yaml
from alto_sim.simulate import play
from alto_sim.workloads.from_logs import recorded
from alto_sim.workloads.loading import load_workload
from tests.tune.same import assert_same_values
from tests.tune.small_study import small_study

SILENT = Console(quiet=True)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("small")
    return tune(small_study(folder), folder / "run", console=SILENT)


def stops(entries: Iterable[Entry]) -> dict[JobId, ExitReason]:
    return {
        decision.job: decision.reason
        for entry in entries
        for decision in entry.decisions
        if isinstance(decision, Stop)
    }


def test_the_run_has_jobs_that_end_in_several_ways(result: Result) -> None:
    reasons = set(stops(result.log.entries).values())
    assert {ExitReason.UNDERPERFORMED, ExitReason.NON_FINITE} <= reasons
    outcomes = {standing.status for standing in result.leaderboard}
    assert {Outcome.FINISHED, Outcome.STOPPED} <= outcomes


def test_the_log_replays_byte_for_byte(result: Result) -> None:
    num_entries, difference = replay_run(result.directory.path)
    assert num_entries == len(result.log.entries) > 0
    assert difference is None


def test_the_lengths_of_its_data_lie_beside_the_log(result: Result) -> None:
    """And whoever simulates the run again knows them."""
    study = load_study(result.directory.study_path)
    (prepared,) = prepare(study)
    known = load_workload(result.directory.path).workload.lengths
    assert list(known) == [prepared.task.id]
    found, samples = known[prepared.task.id], prepared.dataset.train
    assert found.tokens == found.longest == tuple(example.num_tokens for example in samples)
    assert found.targets == tuple(example.samples[0].num_targets for example in samples)
    assert found.sequences == 1


def test_results_are_published_once_they_are_final(result: Result, tmp_path: Path) -> None:
    """Also when they were so long ago."""
    out, there = result.directory, RunDirectory(tmp_path / "there")
    study = load_study(out.study_path)
    tune(study, out.path, resume=True, console=SILENT, publish=f"file://{there.path}")
    for name in ("log_path", "study_path", "leaderboard_path", "metrics_path", "comparison_path"):
        assert getattr(there, name).read_bytes() == getattr(out, name).read_bytes()
    adapter = Path("best", "small", "adapter_model.safetensors")
    assert (there.path / adapter).read_bytes() == (out.path / adapter).read_bytes()
    with pytest.raises(UserError, match=r"--publish: value '.*': another run was published there"):
        tune(study, tmp_path / "run", console=SILENT, publish=str(there.path))
    assert not any((tmp_path / "run").iterdir())


def test_with_other_room_a_run_is_published_where_it_was(result: Result, tmp_path: Path) -> None:
    out, there = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "there")
    shutil.copytree(result.directory.path, out.path)
    study = load_study(out.study_path)
    tune(study, out.path, resume=True, console=SILENT, publish=str(there.path))
    roomier = study.executor.model_copy(update={"max_jobs": 9})
    study = study.model_copy(update={"executor": roomier})
    tune(study, out.path, resume=True, console=SILENT, publish=str(there.path))
    assert load_study(there.study_path).executor.max_jobs == 9
    assert there.study_path.read_bytes() == out.study_path.read_bytes()
    other = study.model_copy(update={"name": "other"})
    there.study_path.write_text(resolved_yaml(other))
    with pytest.raises(UserError, match=r"--publish: value '.*': another run was published there"):
        tune(study, out.path, resume=True, console=SILENT, publish=str(there.path))


def test_the_simulator_stops_the_same_jobs_for_the_same_reasons(result: Result) -> None:
    header = result.log.header
    assert header is not None
    simulated: list[Entry] = []
    play(recorded(result.log), header.policy, header.gpus, simulated.append)
    assert stops(simulated) == stops(result.log.entries)

    def reports(entries: Iterable[Entry]) -> set[tuple[JobId, int, str]]:
        """Losses as text: a lost job reports NaN, which equals nothing."""
        return {
            (event.job, event.step, str((event.train_loss, event.val_loss)))
            for event in (entry.event for entry in entries)
            if isinstance(event, LossReported)
        }

    assert reports(simulated) == reports(result.log.entries)


def test_the_run_directory_is_complete(result: Result) -> None:
    directory = result.directory
    study = load_study(directory.study_path)
    assert study.executor.threads == 1
    assert study.executor.dtype == "float32"
    board = json.loads(directory.leaderboard_path.read_text())
    losses = [row["best_val_loss"] for row in board if row["best_val_loss"] is not None]
    assert losses == sorted(losses)
    assert len(board) == 16
    assert json.loads(directory.metrics_path.read_text())["samples_total"] == 16 * 32
    assert not (directory.path / "checkpoints").exists()
    header = result.log.header
    assert header is not None
    facts = dict(header.made_by)
    assert facts["device"] == "cpu"
    assert facts["processor"] == processor()
    assert facts["cores"] == str(len(os.sched_getaffinity(0)))
    assert re.fullmatch(r"\d+\.\d\d", facts["load before"]), "what else ran there"
    assert "lora_linear" in facts["kernel"]


def test_the_winner_beats_the_untuned_model_and_is_what_was_reported(result: Result) -> None:
    (comparison,) = read_comparisons(result.directory.comparison_path)
    best = result.best()
    assert best is not None
    assert comparison.job == best.standing.job
    assert best.standing.best_val_loss == pytest.approx(comparison.val_loss, rel=1e-6)
    assert comparison.val_loss < comparison.untuned_val_loss
    assert comparison.answers[0].prompt == "say red"


def test_the_winner_loads_in_peft(result: Result) -> None:
    folder = result.directory.best_folder(result.history.tasks[0].id)
    model = AutoModelForCausalLM.from_pretrained(result.history.tasks[0].backbone)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = model(tokens).logits
        adapted = PeftModel.from_pretrained(model, folder)(tokens).logits
    assert not torch.equal(plain, adapted)


def test_a_task_of_its_own_data_does_not_disturb_another(tmp_path: Path) -> None:
    """Two tasks run one after the other on the one device, each with its own winner."""
    study = small_study(tmp_path)
    (spec,) = study.tasks.values()
    few = spec.model_copy(update={"search": None, "jobs": spec.configurations[2:4]})
    both = study.model_copy(update={"tasks": {"one": few, "two": spec}})
    result = tune(both, tmp_path / "both", console=SILENT)
    alone = tune(study, tmp_path / "alone", console=SILENT)
    of_two = {s.job[-2:]: s.best_val_loss for s in result.leaderboard if s.task == "two"}
    assert of_two == {standing.job[-2:]: standing.best_val_loss for standing in alone.leaderboard}
    assert result.best("one") is not None


def test_refuses_another_study_on_resume(result: Result, tmp_path: Path) -> None:
    folder = result.directory.path.parent
    study = small_study(folder)
    other = study.model_copy(update={"prompts": ("say blue",)})
    with pytest.raises(UserError, match="prompts"):
        tune(other, result.directory.path, resume=True, console=SILENT)


def test_resuming_a_finished_run_changes_nothing(result: Result) -> None:
    before = {
        path: path.read_bytes() for path in result.directory.path.rglob("*") if path.is_file()
    }
    left = Path(str(result.directory.checkpoint(result.leaderboard[0].job)))
    left.parent.mkdir()
    left.write_bytes(b"of a process that was killed when the job had ended")
    tune(
        small_study(result.directory.path.parent),
        result.directory.path,
        resume=True,
        console=SILENT,
    )
    after = {path: path.read_bytes() for path in result.directory.path.rglob("*") if path.is_file()}
    assert after == before


def test_the_disk_is_ahead_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is to stop, or has left, and has reported a loss, has its best adapter on disk."""
    out = tmp_path / "run"
    trained: set[JobId] = set()
    seen: list[JobId] = []
    write_entry = LogWriter.write_entry

    def checking(writer: LogWriter, entry: Entry) -> None:
        event = entry.event
        if isinstance(event, LossReported) and math.isfinite(event.val_loss):
            trained.add(event.job)
        leaving = [d.job for d in entry.decisions if isinstance(d, Stop)]
        if isinstance(event, JobLeft):
            leaving.append(event.job)
        for job in trained.intersection(leaving):
            assert (out / "jobs" / job / "adapter_model.safetensors").is_file()
            seen.append(job)
        write_entry(writer, entry)

    monkeypatch.setattr(LogWriter, "write_entry", checking)
    tune(small_study(tmp_path), out, console=SILENT)
    assert len(set(seen)) > 8


def test_memory_that_runs_out_all_the_same_costs_no_job(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device holds three jobs' passes, not the six that the memory model admits."""

    def on_small_device(*inputs: Any, **options: Any) -> int:
        if len(inputs[-1]) > 3:
            raise torch.OutOfMemoryError("no room")
        return train_pass(*inputs, **options)

    monkeypatch.setattr("alto_exec.executor.train_pass", on_small_device)
    assert_no_job_is_lost(result, tmp_path)


def test_memory_that_runs_out_while_the_bank_grows_costs_no_job(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device holds the rows of three jobs, and not those of six."""
    resized = bank_memory._resized

    def on_small_device(bank_RC: Tensor, rows: int) -> Tensor:
        if rows > 10:
            raise torch.OutOfMemoryError("no room")
        return resized(bank_RC, rows)

    monkeypatch.setattr(bank_memory, "_resized", on_small_device)
    assert_no_job_is_lost(result, tmp_path)


def assert_no_job_is_lost(result: Result, folder: Path) -> None:
    """Jobs were evicted, fewer than there are, and all come to the same end."""
    found = tune(small_study(folder), folder / "run", console=SILENT)
    evicted = [
        entry.event.job
        for entry in found.log.entries
        if isinstance(entry.event, JobLeft) and entry.event.how is Departure.EVICTED
    ]
    assert evicted
    assert len(evicted) < 16
    for ours, theirs in zip(found.leaderboard, result.leaderboard, strict=True):
        same = ("job", "status", "reason", "steps")
        assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]
        if ours.best_val_loss is not None and theirs.best_val_loss is not None:
            assert_same_values(ours.best_val_loss, theirs.best_val_loss)
