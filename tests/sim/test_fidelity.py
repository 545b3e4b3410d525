"""Real runs, simulated with their own losses and the times that they or another run tell."""

from pathlib import Path

import pytest

from experiments.fidelity import compare, judge_all, read_recording

RUNS = Path("traces/recorded")
FULL_GRID = "qasc-combined-fact-fifo"
TELL_ROWS = (
    "qasc-question-generation-1000-alto",
    "qasc-question-generation-1000-fifo",
    "cosmosqa-alto",
)
CUT_OFF = "cosmosqa-fifo-later"  # tells rows as well


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


@pytest.mark.parametrize(
    ("judged", "is_cold"), [(TELL_ROWS[0], False), (TELL_ROWS[1], False), (TELL_ROWS[2], True)]
)
def test_a_run_is_as_long_as_the_times_of_all_others_say(judged: str, is_cold: bool) -> None:
    """One of them on a machine that had compiled nothing."""
    runs = {name: read_recording(RUNS / name) for name in (*TELL_ROWS, CUT_OFF)}
    run = runs.pop(judged)
    found = compare(run, *runs.values(), is_cold=is_cold)
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05


def test_a_run_that_was_cut_off_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    judge_all([RUNS / name for name in (*TELL_ROWS, "ropes-fifo", FULL_GRID)])
    rows = [line.split(" | ")[:2] for line in capsys.readouterr().out.splitlines()[2:]]
    assert {name.removeprefix("| ") for name, _ in rows} == {*TELL_ROWS, FULL_GRID}
    for name in TELL_ROWS:
        assert [f"| {name}", "all others"] in rows
    assert [f"| {FULL_GRID}", "ropes-fifo"] in rows
    assert [f"| {FULL_GRID}", "all others"] not in rows
