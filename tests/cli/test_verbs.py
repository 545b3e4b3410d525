"""What verbs do for a cluster's user: seeds, exports, profiles."""

import json
import sys
from pathlib import Path

import pytest

from alto_policy.events import TaskArrived
from alto_policy.runlog import dump_entry
from alto_policy.types import Task
from alto_runs.files.directory import seeds_of
from alto_runs.result import Result
from tests.cli.typed import files_below, mistake, study_file, typed
from tests.runs.cases import entry, fates, job, save, task

Capture = pytest.CaptureFixture[str]


def trace(folder: Path, backbone: str, num_tasks: int = 2) -> Path:
    path = folder / "trace.jsonl"
    lines = []
    for number in range(num_tasks):
        made = task(f"t{number}", [job(f"t{number}-{i}") for i in range(3)])
        made = Task(id=made.id, jobs=made.jobs, backbone=backbone, max_length=512)
        lines.append(dump_entry(entry(TaskArrived(10.0 * number, made))))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_seeds_run_side_by_side(tmp_path: Path, capsys: Capture) -> None:
    path, out = trace(tmp_path, "Llama-3.1-8B-Instruct"), tmp_path / "runs"
    answer = typed(capsys, "simulate", path, "--gpus", "2", "--seeds", "2", "--out", out, "--json")
    assert answer.status == 0
    assert answer.err.splitlines()[-1].endswith(": 2 of 2")
    runs = [Result(out / f"seed-{seed}") for seed in range(2)]
    assert list(json.loads(answer.out)) == ["seed-0", "seed-1"]
    losses = [[standing.best_val_loss for standing in run.leaderboard] for run in runs]
    assert losses[0] != losses[1]
    facts = [dict(run.log.header.made_by) if run.log.header else {} for run in runs]
    assert [each["seed"] for each in facts] == ["0", "1"]
    alone = tmp_path / "alone"
    assert typed(capsys, "simulate", path, "--gpus", "2", "--out", alone).status == 0
    assert (alone / "run.jsonl").read_bytes() == (out / "seed-0" / "run.jsonl").read_bytes()
    page, all_page = tmp_path / "page", tmp_path / "all"
    assert typed(capsys, "report", *(run.directory.path for run in runs), "--out", page).status == 0
    assert typed(capsys, "report", out, "--out", all_page).status == 0
    assert (page / "report.html").read_bytes() == (all_page / "report.html").read_bytes()


def test_seeds_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("seed-10", "seed-2", "seed-x", "other"):
        (tmp_path / name).mkdir()
    assert [run.name for run in seeds_of(tmp_path)] == ["seed-2", "seed-10"]
    assert seeds_of(tmp_path / "other") == [tmp_path / "other"]


def test_a_terminal_shows_a_bar(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    path, out = trace(tmp_path, "Llama-3.1-8B-Instruct"), tmp_path / "runs"
    answer = typed(capsys, "simulate", path, "--gpus", "2", "--seeds", "1", "--out", out)
    assert answer.status == 0
    assert "100%" in answer.err
    assert "1 of 1" not in answer.err


def test_what_is_to_be_warned_of_is_told_once_for_all_seeds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = trace(tmp_path, "nobody-knows-it"), tmp_path / "runs"
    answer = typed(capfd, "simulate", path, "--seeds", "2", "--out", out)
    assert answer.status == 0
    assert answer.err.count("those of an 8B backbone") <= 1
    assert "losses are generated" in answer.out


@pytest.mark.parametrize("count", [2, 8])
def test_rigid_jobs_are_told_without_samples(count: int, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "trace.csv"
    columns = "job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations"
    path.write_text("\n".join([columns, *(f"j{i},0,50,1,,,," for i in range(count)), ""]))
    told = typed(capsys, "simulate", path, "--gpus", "1", "--out", tmp_path / "run").out
    assert "samples" not in told
    assert ("50.0 s from its arrival to its end" in told) == (count == 2)


def test_generated_losses_are_called_so_and_recorded_ones_are_not(
    tmp_path: Path, capsys: Capture
) -> None:
    drawn = typed(capsys, "simulate", trace(tmp_path, "tiny"), "--out", tmp_path / "drawn")
    assert "losses are generated" in drawn.out
    assert "samples trained" in drawn.out
    assert "tokens of the data" not in drawn.out
    study = typed(capsys, "simulate", "examples/demo/study.yaml", "--out", tmp_path / "study")
    assert "tokens of the data are estimated, 4.5 characters a token" in study.out
    run = Path("traces/recorded/qasc-preferences-alto")
    again = typed(capsys, "simulate", run, "--out", tmp_path / "again")
    assert again.status == 0
    assert "losses are" not in again.out


@pytest.mark.parametrize(("policy", "is_asked"), [("fifo", True), ("alto", False)])
def test_losses_that_a_run_does_not_have_are_not_made_up_in_silence(
    policy: str, is_asked: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: Capture
) -> None:
    """Its weak jobs were stopped, and only another policy wants to know how they would go on."""
    run = Path("traces/recorded/qasc-preferences-alto")
    typed(capsys, "simulate", run, "--policy", policy, "--out", tmp_path / "run")
    assert ("losses are needed that were never recorded" in caplog.text) is is_asked


def test_jobs_that_do_not_fit_are_told_before_anything_is_trained(
    tmp_path: Path, capsys: Capture
) -> None:
    small = ("device: cpu", "device: cpu, memory_gb: 0.0001")
    answer = typed(capsys, "tune", study_file(tmp_path, small), "--dry-run")
    assert "2 of 2 jobs do not fit into 0.0001 GB, and would not be trained" in answer.out
    answer = typed(capsys, "tune", study_file(tmp_path), "--dry-run")
    assert answer.status == 0
    assert "not fit" not in answer.out
    assert answer.err.endswith("timing a few passes\n"), "it may take a minute"


def test_seeds_where_nothing_is_drawn(tmp_path: Path, capsys: Capture) -> None:
    run = save(fates(), tmp_path / "run").path
    told = mistake(capsys, "simulate", run, "--seeds", "2", "--out", tmp_path / "runs")
    assert told == "--seeds: nothing is drawn in this workload, every seed gives the same"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("backbone", "profile"),
    [
        ("meta-llama/Llama-3.1-8B", "NVIDIA H100 80GB HBM3, alto-triton"),
        ("nobody/knows", "none: an 8B backbone on one H100"),
    ],
)
def test_the_header_tells_the_profile(
    backbone: str, profile: str, tmp_path: Path, capsys: Capture
) -> None:
    path, out = trace(tmp_path, backbone), tmp_path / "run"
    assert typed(capsys, "simulate", path, "--gpus", "9", "--out", out).status == 0
    header = Result(out).log.header
    assert header is not None
    facts = dict(header.made_by)
    assert facts["profile"] == profile
    assert facts["latencies, s"].startswith("start 0, load 30, launch 0, report 0")
    assert facts.get("step_times") == ("modelled" if "8B" in backbone else None)
    assert [gpu.node for gpu in header.gpus] == ["node0"] * 8 + ["node1"]


def test_many_tasks_are_told_in_totals(tmp_path: Path, capsys: Capture) -> None:
    path = trace(tmp_path, "Llama-3.1-8B", num_tasks=6)
    answer = typed(capsys, "simulate", path, "--out", tmp_path / "run")
    assert answer.status == 0
    assert len(answer.out.splitlines()) == 13
    assert "tasks ended" in answer.out


def test_exports_of_a_report(tmp_path: Path, capsys: Capture) -> None:
    run = save(fates(), tmp_path / "run").path
    out = tmp_path / "out"
    answer = typed(capsys, "report", run, "--out", out, "--csv", "--parquet", "--trace")
    assert answer.status == 0
    names = ("decisions", "jobs", "reports", "tasks", "usage")
    expected = {f"export/{name}.{form}" for name in names for form in ("csv", "parquet")}
    assert set(files_below(out)) == expected | {"export/timeline.json", "report.html"}
    assert len(answer.out.splitlines()) == 12


def test_the_shipped_profile_is_checked(capsys: Capture) -> None:
    answer = typed(capsys, "profile", "--check")
    assert (answer.status, answer.err) == (0, "")
    assert "alto-triton" in answer.out
    assert "rows left out one at a time: median error" in answer.out


def test_profiles_that_are_not_there(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "gone.jsonl"
    told = mistake(capsys, "profile", "--check", path)
    assert told == f"{path}: cannot read this profile: No such file or directory"
    gangs = "kernels/profiles/h100x4.jsonl"
    assert mistake(capsys, "profile", "--check", gangs).startswith(f"{gangs}: expected two StepRow")
    assert "one of the arguments --check --out is required" in mistake(capsys, "profile")


def test_the_study_that_is_simulated_is_named_with_its_field(
    tmp_path: Path, capsys: Capture
) -> None:
    path = study_file(tmp_path, ("train.jsonl", "gone.jsonl"))
    told = mistake(capsys, "simulate", path, "--out", tmp_path / "run")
    assert told.startswith(f"{path}: data.train: value '{tmp_path / 'gone.jsonl'}': no such file, ")
