"""How far simulated runs are from the real ones that are recorded in `traces`.

    python -m experiments.fidelity.makespans [RUN ...] [--each]

Each whole run of a GPU is simulated with its own losses, the lengths of its data, and times that
were learnt without it: of all other runs of its backbone and its code together, of those of any
code where these are fewer than two, of those on another kind of GPU as well where these are too, or
of the shipped profile where nobody else recorded that backbone. `--each` has the times of every
single run of its kind as well, its own among them, and tells apart what a machine had still to
compile. Until its executor is up, a run takes its own time in every row: that is start, not
training. Error of a job: of the moment at which it left for good. The first runs of an H100 are
older than what executors tell of their work: of these the times between reports are fitted, and the
tokens of their data are counted here.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from alto_policy.policies import Settings
from alto_policy.runlog import Entry, RunLog
from alto_runs.costs.durations import PassTimes
from alto_runs.costs.shapes import KNOWN_SHAPES, shape_of
from alto_runs.costs.step_profile import StepProfile
from alto_runs.outcomes.history import RunHistory, follow
from alto_runs.profile import read_profile, shipped_profile
from alto_sim.simulate import play
from alto_sim.workloads.from_logs import recorded
from alto_sim.workloads.workload import Workload
from experiments.fidelity.real_runs import Recording, judged_and_known, read_recording
from experiments.fidelity.sources import Others, Source, others_of
from experiments.recordings.catalogue import MODEL

__all__ = [
    "JOB_BAR",
    "MAKESPAN_BAR",
    "Fidelity",
    "by_profile",
    "compare",
    "judge_all",
    "judge_each",
    "judged",
    "played",
    "predicted",
]

MAKESPAN_BAR, JOB_BAR = 0.03, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Relative errors of a simulated run, and the simulated seconds."""

    seconds: float
    makespan_error: float
    mean_job_error: float

    @property
    def is_within(self) -> bool:
        return abs(self.makespan_error) <= MAKESPAN_BAR and self.mean_job_error <= JOB_BAR


def compare(run: Recording, others: Others, *, is_cold: bool = False) -> Fidelity:
    """The run simulated with its own losses, and with the times of other ones; what it compiled
    is its own where a cold machine is told apart."""
    workload = predicted(run, others)
    if is_cold:
        own = recorded(run.log, run.work).overheads
        overheads = replace(
            workload.overheads,
            compiling=own.compiling,
            first_evaluation=own.first_evaluation,
        )
        workload = replace(workload, overheads=overheads)
    return _compared(run, workload)


def predicted(run: Recording, others: Others) -> Workload:
    """The run with its own losses and start, and with the times of other ones."""
    found = others.fitted()
    return replace(recorded(run.log, times=found), lengths=run.lengths)


def by_profile(run: Recording, times: PassTimes, others: Others | None = None) -> Fidelity:
    """The run simulated with the measured passes and evaluations of a profile; what its executor
    does between them is that of others, or else its own."""
    own = replace(recorded(run.log, run.work), lengths=run.lengths, step_time=times)
    overheads = None if others is None else others.overheads()
    return _compared(run, own if overheads is None else replace(own, overheads=overheads))


def played(run: Recording, workload: Workload, policy: Settings | None = None) -> RunHistory:
    """On the run's GPUs, by its policy unless another one is given."""
    entries: list[Entry] = []
    play(workload, policy or run.header.policy, run.header.gpus, entries.append)
    return follow(RunLog(run.header, tuple(entries)))


def _compared(run: Recording, workload: Workload) -> Fidelity:
    real, made = run.history, played(run, workload)
    ends = dict(_ends(made))
    return Fidelity(
        seconds=made.end,
        makespan_error=made.end / real.end - 1,
        mean_job_error=fmean(abs(ends[name] / end - 1) for name, end in _ends(real)),
    )


def judged(
    runs: Sequence[Recording], known: Sequence[Recording] | None = None
) -> Iterator[tuple[Recording, Others, Fidelity]]:
    """Each run with the times of others."""
    for run in runs:
        others = others_of(run, runs if known is None else known)
        if others.source is not Source.PROFILE:
            yield run, others, compare(run, others)
        elif run.tells_rows:
            yield run, others, by_profile(run, _profile(), others)


@cache
def _profile() -> StepProfile:
    """The shipped one, which knows slices of a backbone as well."""
    whole = shape_of(MODEL, KNOWN_SHAPES)
    names = {count: f"{count}-layers-of-{MODEL}" for count in range(1, whole.layers)}
    slices = {name: replace(whole, name=name, layers=count) for count, name in names.items()}
    return StepProfile(read_profile(shipped_profile()), shapes=slices)


def judge_all(runs: Sequence[Recording], known: Sequence[Recording]) -> None:
    """Prints a table of every run by the times of others, and what of it is within the bars."""
    print("| run | code | by the times of | real, s | simulated, s | makespan | mean job |")
    print("|---|---|---|---|---|---|---|")
    all_found: list[Fidelity] = []
    for run, others, found in judged(runs, known):
        count = len(others.runs or others.between)
        whose = f"{run.name} | {(run.code or '')[:7]} | {count} {others.source}"
        _print_row(run, whose, found)
        all_found.append(found)
    makespans = sum(abs(found.makespan_error) <= MAKESPAN_BAR for found in all_found)
    jobs = sum(found.mean_job_error <= JOB_BAR for found in all_found)
    print(f"{makespans} of {len(all_found)} makespans within 3 %, {jobs} mean jobs within 5 %")


def judge_each(runs: Sequence[Recording]) -> None:
    """Prints a table of every run with the times of every run of its machine, and with those of
    all others together; what it compiled is told apart."""
    print("| run | times of | real, s | simulated, s | makespan | mean job |")
    print("|---|---|---|---|---|---|")
    for run in (run for run in runs if run.is_whole):
        for times in (times for times in runs if times.is_like(run)):
            whose = "itself" if times is run else times.name
            _print_row(run, f"{run.name} | {whose}", compare(run, Others((times,))))
        others = others_of(run, runs)
        if run.tells_rows and others.source is not Source.PROFILE:
            _print_row(run, f"{run.name} | all others", compare(run, others))
            found = compare(run, others, is_cold=True)
            _print_row(run, f"{run.name} | the same, compiled as it was", found)


def _print_row(run: Recording, whose: str, found: Fidelity) -> None:
    real = run.log.entries[-1].event.t
    errors = f"{found.makespan_error:+.1%} | {found.mean_job_error:.1%}"
    print(f"| {whose} | {real:.1f} | {found.seconds:.1f} | {errors} |", flush=True)


def _ends(history: RunHistory) -> Iterator[tuple[str, float]]:
    for name, job in history.jobs.items():
        if job.residencies:
            yield name, max(stay.end for stay in job.residencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="default: those of traces")
    parser.add_argument("--each", action="store_true", help="by each run of its kind as well")
    options = parser.parse_args()
    runs, known = judged_and_known()
    if options.runs:
        runs = known = [read_recording(folder) for folder in options.runs]
    if options.each:
        judge_each(runs)
    else:
        judge_all([run for run in runs if run.is_whole], known)


if __name__ == "__main__":
    main()
