"""Real runs, simulated with their own losses and the times that they or another run tell."""

import re
import shutil
from pathlib import Path

import pytest

from alto_runs.directory import RunDirectory, runs_below
from alto_runs.history import follow
from alto_runs.lines import open_lines
from experiments.fidelity import by_all_others, by_profile, compare, judge_all, read_recording
from experiments.fidelity_parts import predicted_parts, real_parts
from experiments.search_costs import profile_of

RUNS = Path("traces/recorded")
FULL_GRID = "qasc-combined-fact-fifo"
TOLD = {  # by the times of all others within the bars
    "cosmosqa-alto",
    "cosmosqa-alto-seed1",
    "cosmosqa-fifo",
    "cosmosqa-fifo-seed1",
    "qasc-combined-fact-alto",
    "qasc-combined-fact-fifo",
    "qasc-preferences-fifo",
    "qasc-question-generation-1000-alto",
    "qasc-question-generation-1000-alto-seed1",
    "qasc-question-generation-1000-fifo",
    "qasc-question-generation-1000-fifo-seed1",
    "qasc-question-generation-alto",
    "ropes-alto",
    "ropes-alto-seed1",
    "ropes-fifo",
}


def test_a_real_run_of_sixty_jobs_to_their_ends_is_as_long_again() -> None:
    run = read_recording(RUNS / FULL_GRID)
    found = compare(run, run)
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


@pytest.mark.parametrize(
    ("judged", "learnt"),
    [
        ("qasc-combined-fact-alto", FULL_GRID),
        ("cosmosqa-alto", "cosmosqa-alto-seed1"),
    ],
)
def test_a_run_with_exits_is_as_long_as_the_times_of_another_say(judged: str, learnt: str) -> None:
    """Nothing of the run that is judged was fitted."""
    found = compare(read_recording(RUNS / judged), read_recording(RUNS / learnt))
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


def test_runs_are_as_long_as_the_times_of_all_others_say() -> None:
    judged = dict(by_all_others([read_recording(folder) for folder in runs_below(RUNS)]))
    assert {run.name for run in judged} > TOLD
    for run, found in judged.items():
        if run.name in TOLD:
            assert abs(found.makespan_error) <= 0.03, run.name
            assert found.mean_job_error <= 0.05, run.name


@pytest.mark.parametrize(
    "name",
    [
        "recorded/cosmosqa-alto",
        "recorded/qasc-question-generation-1000-fifo",
        "speed/llama-3.2-1b-fifo",
        "speed/llama-3.1-8b-fifo",
    ],
)
def test_a_run_is_about_as_long_as_the_shipped_profile_says(name: str) -> None:
    """Measured passes and evaluations of random weights, on another day: no prediction to a
    percent, but none that is twice as long."""
    found = by_profile(read_recording(RUNS.parent / name), profile_of())
    assert abs(found.makespan_error) <= 0.3


def test_a_run_that_was_cut_off_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times are learnt from it, as from the others."""
    whole = "qasc-question-generation-1000-alto", "cosmosqa-alto"
    old = "old"
    shutil.copytree(RUNS / "qasc-question-generation-alto", tmp_path / old)
    with open_lines(RunDirectory(tmp_path / old).work_path) as lines:
        told = re.sub(r'"replayed_rows":\d+', '"replayed_rows":0', lines.read())
    (tmp_path / old / "work.jsonl").write_text(told)
    shutil.copytree(RUNS / "ropes-alto", tmp_path / "cut")
    with open_lines(RunDirectory(tmp_path / "cut").log_path) as lines:
        (tmp_path / "cut" / "run.jsonl").write_text("".join(list(lines)[:-30]))
    judge_all([*(RUNS / name for name in whole), tmp_path / old, tmp_path / "cut"])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert {name.removeprefix("| ") for name, _ in rows} == {*whole, old}
    for name in whole:
        assert [f"| {name}", "all others"] in rows
    assert [f"| {old}", "cut"] in rows
    assert [f"| {old}", "all others"] not in rows  # it tells no rows


def test_parts_of_a_run_are_all_of_it() -> None:
    """Of the times that it told itself the simulated ones are as long."""
    run = read_recording(RUNS / "qasc-question-generation-1000-alto")
    (executor,) = follow(run.log).executors
    real, made = real_parts(run), predicted_parts(run, [run])
    assert real.total == pytest.approx(executor.end - executor.start)
    assert made.count == pytest.approx(real.count, abs=1.0)
    for part in ("recordings", "replays", "evaluations", "first_evaluations", "launches"):
        assert getattr(made, part) == pytest.approx(getattr(real, part), rel=0.2), part
