"""How far simulated runs are from the real ones that are recorded in `traces/recorded`.

    python experiments/fidelity.py [RUN ...]

Each run is simulated with its own losses, the lengths of its data and the times fitted to each of
the runs of its machine over its backbone, and to all others of its code together that tell what
replays computed. Only rows of other runs' times are
predictions; what a machine has still to compile cannot be predicted, and is told apart. Until its
executor is up, a run takes its own time in every row: that is start, not training. Error of a job:
of the moment at which it left for good. The first runs of an H100 are older than what executors
tell of their work: of these the times between reports are fitted, and the tokens of their data are
counted here.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import fmean

from alto_policy.events import TaskArrived
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import TaskId, TokenCounts
from alto_runs.costs.durations import PassTimes
from alto_runs.data_lengths import SampleLengths, read_lengths
from alto_runs.directory import RunDirectory, runs_below
from alto_runs.executor_work import TrainingWork, Work, read_work
from alto_runs.history import Outcome, RunHistory, follow
from alto_runs.logfile import read_run_log
from alto_sim.simulate import play
from alto_sim.workload import Workload, learnt, recorded

__all__ = [
    "RUNS",
    "Fidelity",
    "Recording",
    "by_all_others",
    "compare",
    "judge_all",
    "others_of",
    "played",
    "predicted",
    "read_recording",
]

RUNS = Path("traces/recorded")
LENGTHS = Path("traces/lengths")
_FEWEST = 2  # runs that times are learnt from
COUNTED = {
    TaskId("qasc_combined_fact"): TokenCounts(per_sample=74.13, validation=18_952),
    TaskId("qasc_question_generation"): TokenCounts(per_sample=52.70, validation=6_756),
}


@dataclass(frozen=True, slots=True)
class Recording:
    """A run, and what its executors told of their work."""

    name: str
    header: Header
    log: RunLog
    work: tuple[Work, ...]
    # By executors of runs that are new enough.
    told_lengths: Mapping[TaskId, SampleLengths] = field(default_factory=dict, compare=False)

    @property
    def machine(self) -> str:
        return self.header.gpus[0].kind

    @property
    def code(self) -> str | None:
        """The commit of those that tell it."""
        return dict(self.header.made_by).get("commit")

    @property
    def lengths(self) -> dict[TaskId, SampleLengths]:
        """Of tasks whose data set is known by its counts, where their executors did not tell."""
        tasks = follow(self.log).tasks
        known = _known_lengths()
        found = {task.id: known[task.tokens] for task in tasks if task.tokens in known}
        return found | dict(self.told_lengths)

    @property
    def pairs(self) -> set[TaskId]:
        return {task for task, lengths in self.lengths.items() if lengths.sequences > 1}

    @property
    def backbones(self) -> set[str]:
        return {task.backbone for task in follow(self.log).tasks}

    @property
    def is_whole(self) -> bool:
        """Not cut off: from other runs one learns, and they are not judged."""
        return not any(
            job.outcome in (Outcome.RUNNING, Outcome.PAUSED, Outcome.QUEUED)
            for job in follow(self.log).jobs.values()
        )

    @property
    def tells_rows(self) -> bool:
        """That replays computed; executors of older runs did not."""
        return any(isinstance(row, TrainingWork) and row.replayed_rows for row in self.work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """Relative errors of a simulated run, and the simulated seconds."""

    seconds: float
    makespan_error: float
    mean_job_error: float


def read_recording(folder: Path) -> Recording:
    """Raises UserError."""
    directory = RunDirectory.open(folder)
    log = read_run_log(directory.log_path)
    header = log.header
    assert header is not None
    entries = tuple(_counted(entry) for entry in log.entries)
    log = replace(log, entries=entries)
    lengths = read_lengths(directory.lengths_path)
    return Recording(folder.name, header, log, read_work(directory.work_path), lengths)


def compare(run: Recording, *times: Recording, is_cold: bool = False) -> Fidelity:
    """The run simulated with its own losses, and with the times of other ones; what it compiled
    is its own where a cold machine is told apart."""
    workload = predicted(run, *times)
    if is_cold:
        own = recorded(run.log, run.work).overheads
        overheads = replace(
            workload.overheads,
            compiling=own.compiling,
            first_evaluation=own.first_evaluation,
        )
        workload = replace(workload, overheads=overheads)
    return _compared(run, workload)


def predicted(run: Recording, *times: Recording) -> Workload:
    """The run with its own losses and start, and with the times of other ones."""
    found = learnt(
        *((other.log, other.work) for other in times),
        pairs={task for other in times for task in other.pairs},
    )
    own = replace(recorded(run.log, run.work), lengths=run.lengths)
    return replace(own, step_time=found.step_time, overheads=found.overheads)


def by_profile(run: Recording, times: PassTimes) -> Fidelity:
    """The run simulated with the measured passes and evaluations of a profile; what its executor
    did between them is its own."""
    own = replace(recorded(run.log, run.work), lengths=run.lengths)
    return _compared(run, replace(own, step_time=times))


def played(run: Recording, workload: Workload) -> RunHistory:
    """By the run's policy, on its GPUs."""
    entries: list[Entry] = []
    play(workload, run.header.policy, run.header.gpus, entries.append)
    return follow(RunLog(run.header, tuple(entries)))


def _compared(run: Recording, workload: Workload) -> Fidelity:
    real, made = follow(run.log), played(run, workload)
    ends = dict(_ends(made))
    return Fidelity(
        seconds=made.end,
        makespan_error=made.end / real.end - 1,
        mean_job_error=fmean(abs(ends[name] / end - 1) for name, end in _ends(real)),
    )


def by_all_others(runs: Sequence[Recording]) -> Iterator[tuple[Recording, Fidelity]]:
    """Each whole run with the times of all others of its kind that tell what replays computed;
    only runs that tell it themselves."""
    for run in runs:
        others = others_of(run, runs)
        if run.is_whole and run.tells_rows and len(others) >= _FEWEST:
            yield run, compare(run, *others)


def others_of(run: Recording, runs: Sequence[Recording]) -> list[Recording]:
    """That were made by the same state of the code, in one go and beside as many others; by any
    state where those are too few to tell."""
    known = [
        times for times in runs if times is not run and _are_alike(times, run) and times.tells_rows
    ]
    same = [times for times in known if times.code == run.code]
    return same if len(same) >= _FEWEST else known


def _are_alike(run: Recording, other: Recording) -> bool:
    return run.machine == other.machine and run.backbones == other.backbones


def judge_all(folders: Sequence[Path]) -> None:
    """Prints a table of every run with the times of every run of its machine, and with those of
    all others of its code together that tell what replays computed."""
    runs = [read_recording(folder) for folder in folders]
    print("| run | times of | real, s | simulated, s | makespan | mean job |")
    print("|---|---|---|---|---|---|")
    for run in (run for run in runs if run.is_whole):
        alike = [times for times in runs if _are_alike(times, run)]
        for times in alike:
            _print_row(run, "itself" if times is run else times.name, compare(run, times))
        others = others_of(run, runs)
        if run.tells_rows and len(others) >= _FEWEST:
            _print_row(run, "all others", compare(run, *others))
            found = compare(run, *others, is_cold=True)
            _print_row(run, "the same, compiled as it was", found)


def _print_row(run: Recording, whose: str, found: Fidelity) -> None:
    real = run.log.entries[-1].event.t
    errors = f"{found.makespan_error:+.1%} | {found.mean_job_error:.1%}"
    print(f"| {run.name} | {whose} | {real:.1f} | {found.seconds:.1f} | {errors} |")


@cache
def _known_lengths() -> dict[TokenCounts | None, SampleLengths]:
    """Of the data sets of recorded runs: what goes into a run, and is known before it."""
    known: dict[TokenCounts | None, SampleLengths] = {}
    for path in sorted(LENGTHS.glob("*.json")):
        told = json.loads(path.read_text())
        counts = TokenCounts(per_sample=told["per_sample"], validation=told["validation"])
        known[counts] = SampleLengths(
            tokens=tuple(told["tokens"]),
            targets=tuple(told["targets"]),
            longest=tuple(told.get("longest", told["tokens"])),
            sequences=told["sequences"],
        )
    return known


def _counted(entry: Entry) -> Entry:
    """With the tokens of the task's data."""
    if isinstance(entry.event, TaskArrived) and entry.event.task.tokens is None:
        task = replace(entry.event.task, tokens=COUNTED.get(entry.event.task.id))
        return replace(entry, event=replace(entry.event, task=task))
    return entry


def _ends(history: RunHistory) -> Iterator[tuple[str, float]]:
    for name, job in history.jobs.items():
        if job.residencies:
            yield name, max(stay.end for stay in job.residencies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="default: those of traces/recorded")
    options = parser.parse_args()
    judge_all(options.runs or runs_below(RUNS))


if __name__ == "__main__":
    main()
