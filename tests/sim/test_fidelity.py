"""Real runs, simulated with their own losses and the times that they or another run tell."""

from pathlib import Path

import pytest

from experiments.fidelity import compare, read_recording

RUNS = Path("traces/recorded")
FULL_GRID = "qasc-combined-fact-fifo"


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
