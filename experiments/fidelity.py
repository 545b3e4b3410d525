"""How far simulated runs are from the real ones that are recorded in `traces/recorded`.

    python experiments/fidelity.py

Each run is simulated with its own losses and the step times fitted to each of the runs; only rows
of another run's times are predictions. Error of a job: of the moment at which it left for good.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from alto_policy.runlog import Entry, RunLog
from alto_runs.history import RunHistory, follow
from alto_runs.logfile import read_run_log
from alto_sim.calibrate import fit
from alto_sim.simulate import play
from alto_sim.workload import recorded

__all__ = ["Fidelity", "compare"]

RUNS = Path("traces/recorded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Relative errors of a simulated run, and the simulated seconds."""

    seconds: float
    makespan_error: float
    mean_job_error: float


def compare(log: RunLog, times: RunLog) -> Fidelity:
    """The run simulated with its own losses, and with the step times of another one."""
    assert log.header is not None
    workload = replace(recorded(log), step_time=fit(times.entries))
    entries: list[Entry] = []
    play(workload, log.header.policy, log.header.gpus, entries.append)
    real, made = follow(log), follow(RunLog(log.header, tuple(entries)))
    ends = dict(_ends(made))
    return Fidelity(
        seconds=made.end,
        makespan_error=made.end / real.end - 1,
        mean_job_error=fmean(abs(ends[name] / end - 1) for name, end in _ends(real)),
    )


def _ends(history: RunHistory) -> Iterator[tuple[str, float]]:
    for name, job in history.jobs.items():
        if job.residencies:
            yield name, max(stay.end for stay in job.residencies)


def main() -> None:
    logs = {path.parent.name: read_run_log(path) for path in sorted(RUNS.glob("*/run.jsonl"))}
    print("| run | times of | real, s | simulated, s | makespan | mean job |")
    print("|---|---|---|---|---|---|")
    for name, log in logs.items():
        for other, times in logs.items():
            found = compare(log, times)
            whose = "itself" if other == name else other
            real = log.entries[-1].event.t
            errors = f"{found.makespan_error:+.1%} | {found.mean_job_error:.1%}"
            print(f"| {name} | {whose} | {real:.1f} | {found.seconds:.1f} | {errors} |")


if __name__ == "__main__":
    main()
