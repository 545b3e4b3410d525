"""Real runs, simulated with their own losses and the times that they or another run tell."""

import shutil
from pathlib import Path

import pytest

from experiments.fidelity import by_profile, compare, judge_all, read_recording
from experiments.search_costs import profile_of

RUNS = Path("traces/recorded")
FULL_GRID = "qasc-combined-fact-fifo"
WARM = (  # whatever they needed had been compiled before; of others a tenth and more is compilation
    "qasc-question-generation-1000-alto",
    "qasc-question-generation-1000-fifo",
    "qasc-question-generation-1000-fifo-seed1",
    "cosmosqa-fifo",
)
TELL_ROWS = (*WARM, "cosmosqa-alto", "ropes-alto")


def test_a_real_run_of_sixty_jobs_to_their_ends_is_as_long_again() -> None:
    run = read_recording(RUNS / FULL_GRID)
    found = compare(run, run)
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


@pytest.mark.parametrize(
    ("judged", "learnt"),
    [
        ("qasc-combined-fact-alto", FULL_GRID),
        ("qasc-question-generation-alto", "qasc-combined-fact-alto"),
    ],
)
def test_a_run_with_exits_is_as_long_as_the_times_of_another_say(judged: str, learnt: str) -> None:
    """Nothing of the run that is judged was fitted."""
    found = compare(read_recording(RUNS / judged), read_recording(RUNS / learnt))
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


@pytest.mark.parametrize("judged", WARM)
def test_a_run_is_as_long_as_the_times_of_all_others_say(judged: str) -> None:
    runs = {name: read_recording(RUNS / name) for name in TELL_ROWS}
    found = compare(runs.pop(judged), *runs.values())
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


@pytest.mark.parametrize("name", ["cosmosqa-alto", "qasc-question-generation-1000-fifo"])
def test_a_run_is_about_as_long_as_the_shipped_profile_says(name: str) -> None:
    """Measured passes and evaluations of random weights, on another day: no prediction to a
    percent, but none that is twice as long."""
    found = by_profile(read_recording(RUNS / name), profile_of())
    assert abs(found.makespan_error) <= 0.3


def test_a_run_that_was_cut_off_is_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times are learnt from it, as from the others."""
    whole, old = ("qasc-question-generation-1000-alto", "cosmosqa-alto"), "qasc-combined-fact-alto"
    shutil.copytree(RUNS / "ropes-alto", tmp_path / "cut")
    log = tmp_path / "cut" / "run.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-30]))
    judge_all([*(RUNS / name for name in (*whole, old)), tmp_path / "cut"])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert {name.removeprefix("| ") for name, _ in rows} == {*whole, old}
    for name in whole:
        assert [f"| {name}", "all others"] in rows
    assert [f"| {old}", "cut"] in rows
    assert [f"| {old}", "all others"] not in rows  # it tells no rows
