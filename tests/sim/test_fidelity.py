"""A real run, simulated with its own losses and the step times that its log tells."""

from pathlib import Path

from alto_runs.logfile import read_run_log
from experiments.fidelity import compare

RUN = Path("traces/recorded/qasc-combined-fact-fifo/run.jsonl")


def test_a_real_run_of_sixty_jobs_to_their_ends_is_as_long_again() -> None:
    log = read_run_log(RUN)
    found = compare(log, log)
    assert abs(found.makespan_error) <= 0.03
    assert found.mean_job_error <= 0.05
